// The checks that need no test run: format, lint, and the list of protocol fields. The build has checked the types.

import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const bin = (name) => join(root, "node_modules", ".bin", name);
const CHECKS = [
  { name: "format", command: [bin("biome"), "format", "."], cure: "npm run format" },
  { name: "lint", command: [bin("oxlint"), "--type-aware", "--deny-warnings"], cure: null },
  {
    name: "proto",
    command: [process.execPath, join(root, "scripts", "proto.mjs"), "--check"],
    cure: "npm run proto",
  },
];

const failed = [];
for (const { name, command, cure } of CHECKS) {
  const [program, ...args] = command;
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: "inherit" });
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
