// prometheus and promtool: the ones on PATH, else Debian's, unpacked into the cache and not installed, so
// that no service starts and no account is made.

import { join } from "node:path";
import { aptUnpack } from "./apt.mjs";
import { say } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { findProgram, run } from "./run.mjs";

export async function installPrometheus(cacheDir) {
  const found = { promtool: findProgram("promtool"), prometheus: findProgram("prometheus") };
  if (found.promtool !== null && found.prometheus !== null) return found;
  const directory = join(cacheDir, "tools", "prometheus");
  const tools = {
    promtool: join(directory, "usr", "bin", "promtool"),
    prometheus: join(directory, "usr", "bin", "prometheus"),
  };
  await placeDirectory(directory, async (partialDir) => {
    say("fetching prometheus");
    await aptUnpack("prometheus", partialDir);
    await run(join(partialDir, "usr", "bin", "promtool"), ["--version"]);
    await run(join(partialDir, "usr", "bin", "prometheus"), ["--version"]);
  });
  return tools;
}
