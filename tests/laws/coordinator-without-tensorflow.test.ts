import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";
import {
  importsOf,
  listFiles,
  packageOf,
  readSource,
  staticClosure,
} from "#tests/support/source-files";

/** Prints, for each module that is imported, its URL; then what native libraries are loaded. */
const probe = `
import { register } from "node:module";
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
const { port1, port2 } = new MessageChannel();
const hook = \`
let port;
export function initialize(data) { port = data.port; }
export async function resolve(specifier, context, next) {
  const resolved = await next(specifier, context);
  port.postMessage(resolved.url);
  return resolved;
}\`;
register("data:text/javascript," + encodeURIComponent(hook), {
  data: { port: port2 },
  transferList: [port2],
});
await import(process.argv[1]);
const urls = [];
for (let m = receiveMessageOnPort(port1); m !== undefined; m = receiveMessageOnPort(port1)) {
  urls.push(m.message);
}
const { createRequire } = await import("node:module");
const required = Object.keys(createRequire(import.meta.url).cache);
const libraries = process.report.getReport().sharedObjects;
console.log(JSON.stringify({ urls, required, libraries }));
process.exit(0);
`;

interface Loaded {
  readonly urls: readonly string[];
  readonly required: readonly string[];
  readonly libraries: readonly string[];
}

async function load(module: string): Promise<Loaded> {
  const url = pathToFileURL(join(packageRoot, "dist", module)).href;
  const { code, stdout, stderr } = await runProgram(
    process.execPath,
    ["--input-type=module", "-e", probe, url],
    { cwd: packageRoot },
  );
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Loaded;
}

const tensorflow = (loaded: Loaded): readonly string[] =>
  [...loaded.urls, ...loaded.required, ...loaded.libraries].filter((name) =>
    /tensorflow|tfjs/i.test(name.replace(packageRoot, "")),
  );

test("the coordinator's program loads no TensorFlow and no tfjs", async () => {
  const loaded = await load("coordinator/coordinator.js");
  assert.ok(loaded.urls.some((url) => url.endsWith("/dist/coordinator/coordinator.js")));
  assert.ok(
    loaded.urls.some((url) => url.includes("@grpc/grpc-js")),
    "the probe sees no packages",
  );
  assert.deepEqual(tensorflow(loaded), []);
});

test("the probe sees TensorFlow's packages where they are loaded", async () => {
  const loaded = await load("lib/models/llama/index.js");
  assert.notDeepEqual(tensorflow(loaded), []);
});

test("nothing that a coordinator, a reducer shard or a reader of model facts imports leads to TensorFlow", () => {
  const entries = [
    ...listFiles(["coordinator", "reducer"], ".ts"),
    "cli/coordinator.ts",
    "cli/reducer.ts",
    "lib/optim/index.ts",
    "lib/wire/grpc-server.ts",
    "lib/models/facts.ts",
    "lib/models/classifier-checkpoint.ts",
  ];
  assert.ok(entries.length > 10);
  for (const entry of entries) {
    for (const path of staticClosure(entry)) {
      const packages = importsOf(readSource(path))
        .filter(({ typeOnly, dynamic }) => !typeOnly && !dynamic)
        .map(({ specifier }) => packageOf(specifier));
      const guilty = packages.find((name) => name.startsWith("@tensorflow"));
      assert.equal(guilty, undefined, `${entry} loads ${path}, which imports ${guilty}`);
    }
  }
});
