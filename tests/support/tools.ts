import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TestOptions } from "node:test";
import { packageRoot } from "#lib/core/paths";

/** Programs and files that only tests use; the set-up with --test writes where they are. */
type ToolName =
  | "promtool"
  | "prometheus"
  | "kubeconform"
  | "kustomize"
  | "gofakes3"
  | "kubernetesSchemas"
  | "chromium"
  | "llamaCpp"
  | "natsServer"
  | "node20"
  | "node22"
  | "node24";

const listFile = join(packageRoot, "dist", "test-tools.json");

function paths(): Partial<Record<ToolName, string | null>> {
  if (!existsSync(listFile)) return {};
  const list: unknown = JSON.parse(readFileSync(listFile, "utf8"));
  return typeof list === "object" && list !== null ? list : {};
}

/** The path of a tool that `needs` found. @throws if it is not there. */
export function toolPath(name: ToolName): string {
  const path = paths()[name];
  if (path === undefined || path === null) {
    throw new Error(`${name} is not installed; run: node scripts/setup.mjs --test`);
  }
  return path;
}

/**
 * Options of a test that uses these tools: without them it is skipped and says why, and with CI=true
 * it runs and fails.
 */
export function needs(...names: readonly ToolName[]): TestOptions {
  const missing = names.filter((name) => (paths()[name] ?? null) === null);
  if (missing.length === 0 || process.env.CI === "true") return {};
  return { skip: `${missing.join(" and ")} not installed (node scripts/setup.mjs --test)` };
}
