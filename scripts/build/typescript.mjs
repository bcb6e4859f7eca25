// TypeScript to JavaScript, incrementally. The dashboard's browser code has a project of its own, because
// it knows the DOM and not Node, and so have the declarations of what the package exports.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { run } from "../setup/run.mjs";

/** Compiles all projects; a type error is an error of the build. */
export async function compileTypeScript(root) {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  const projects = ["tsconfig.json", "dashboard/tsconfig.json", "run/tsconfig.json"];
  for (const project of projects) {
    if (!existsSync(join(root, project))) continue;
    await run(process.execPath, [compiler, "-p", project, "--pretty", "false"], { cwd: root });
  }
}
