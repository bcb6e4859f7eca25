import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs, toolPath } from "#tests/support/tools";

let job: TinyJob;
let expected: string | undefined;
before(async () => {
  job = await createTinyJob({
    max_steps: 1,
    workers: 1,
    eval_on_start: false,
    eval_strategy: "no",
    sample_prompt: null,
  });
});
after(() => job.remove());

const train = (command: "train" | "train-local", node?: string) =>
  lockstepCommand(
    [
      command,
      job.configFile,
      ...(command === "train" ? ["--json-logs"] : []),
      "--output-dir",
      join(job.directory, `${command}-${node === undefined ? "own" : "other"}`),
      "--overwrite-output-dir",
    ],
    join(job.directory, "cache"),
    undefined,
    {},
    node,
  );

for (const name of ["node20", "node22", "node24"] as const) {
  test(`a coordinator and a worker on ${name} end with the weights of one process here`, {
    ...needs(name),
  }, async () => {
    if (expected === undefined) {
      const local = await train("train-local");
      assert.equal(local.code, 0, local.stderr);
      expected = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
      assert.ok(expected !== undefined, local.lines.join("\n"));
    }
    const { code, stderr, of } = await train("train", toolPath(name));
    assert.equal(code, 0, stderr);
    // Warnings of Node itself, `(node:1) [DEP0169] ...`, would stand in the middle of the display.
    assert.doesNotMatch(stderr, /\(node:\d+\)/);
    assert.equal(of("run.completed")[0]?.mastersSha256, expected);
  });
}
