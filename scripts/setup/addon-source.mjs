// The sources of the tfjs-node addon, which the engine is compiled from: in a checkout those of the npm package,
// whose own install script is not run, and in an installed package a copy that the build made of them. So who
// installs the package gets neither that script nor what it would fetch.

import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { lockedPackage } from "./npm-packages.mjs";

const PACKAGE = "@tensorflow/tfjs-node-gpu";
const FACTS_FILE = "source.json";

/** Whether `root` is a checkout, and not the package as npm installs it. */
export function isCheckout(root) {
  return existsSync(join(root, "tsconfig.json"));
}

/**
 * Where the sources are (`binding/` is in there), and the package that they are of.
 *
 * @returns {{directory: string, version: string, integrity: string}}
 */
export function addonSource(root) {
  if (isCheckout(root)) {
    return { directory: join(root, "node_modules", PACKAGE), ...lockedPackage(root, PACKAGE) };
  }
  const directory = packedDirectory(root);
  return { directory, ...JSON.parse(readFileSync(join(directory, FACTS_FILE), "utf8")) };
}

/** The directory of the N-API headers. */
export function headersDirectory(root) {
  const { resolve } = createRequire(join(root, "package.json"));
  return join(dirname(resolve("node-api-headers/package.json")), "include");
}

/** Copies a checkout's sources to where the package has them. */
export function copyAddonSource(root) {
  const { directory, ...facts } = addonSource(root);
  const sources = join(directory, "binding");
  if (!existsSync(sources)) return;
  const target = packedDirectory(root);
  mkdirSync(target, { recursive: true });
  cpSync(sources, join(target, "binding"), { recursive: true });
  writeFileSync(join(target, FACTS_FILE), `${JSON.stringify(facts, null, 2)}\n`);
}

const packedDirectory = (root) => join(root, "dist", "addon");
