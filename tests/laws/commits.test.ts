import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { readSource } from "#tests/support/source-files";

/** Subject lines of the history, merges left out; undefined in a copy without it. */
function subjects(): readonly string[] | undefined {
  try {
    return execFileSync("git", ["log", "--no-merges", "--format=%s"], {
      ...{ cwd: packageRoot, encoding: "utf8", maxBuffer: 1 << 26 },
      stdio: ["ignore", "pipe", "ignore"],
    })
      .split("\n")
      .filter((line) => line !== "");
  } catch {
    return undefined;
  }
}

test("a commit's subject is [area] and a sentence, the area one of CONTRIBUTING.md", (t) => {
  const text = readSource("CONTRIBUTING.md").split("## Commits")[1] ?? "";
  const [, list = ""] = /Areas are ([\s\S]*?)\.\n/.exec(text) ?? [];
  const areas = new Set([...list.matchAll(/`([a-z]+)`/g)].map(([, area = ""]) => area));
  assert.ok(areas.size > 20 && areas.has("core"), "the list of areas is not found");
  const lines = subjects();
  if (lines === undefined) {
    t.skip("a copy without git's history");
    return;
  }
  const wrong = lines.filter((line) => {
    const [, area = "", sentence = ""] = /^\[([^\]]*)\] (.*)$/.exec(line) ?? [];
    return !areas.has(area) || !/^[A-Z].*[^.]$/.test(sentence);
  });
  assert.deepEqual(wrong, []);
});
