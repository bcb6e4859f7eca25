// The checks that need no test run: format and lint. The build has checked the types.

import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const CHECKS = [
  { name: "format", program: "biome", args: ["format", "."], cure: "npm run format" },
  { name: "lint", program: "oxlint", args: ["--type-aware", "--deny-warnings"], cure: null },
];

const failed = [];
for (const { name, program, args, cure } of CHECKS) {
  const path = join(root, "node_modules", ".bin", program);
  const { status, error } = spawnSync(path, args, { cwd: root, stdio: "inherit" });
  if (error)
    console.error(
      `check: ${program} did not start (${error.message}); run: node scripts/setup.mjs`,
    );
  if (status !== 0) failed.push(cure === null ? name : `${name} (cure: ${cure})`);
}
if (failed.length > 0) {
  console.error(`check: failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
