import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { verifyChecksums } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { createLargerJob, storedTensors } from "#tests/support/larger-job";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { descendantsOf } from "#tests/support/processes";

// A reducer is killed while a checkpoint is being written. LOCKSTEP_TEST_ALL=1 kills several of them, after two steps.

const totalSteps = 4;
let job: Awaited<ReturnType<typeof createLargerJob>>;
let expected: string | undefined;

before(async () => {
  job = await createLargerJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ max_steps: totalSteps, save_strategy: "steps", save_steps: 1, reducer_timeout_ms: 5_000 },
  });
  expected = digestOf(await run("threads", []));
});

after(() => job.remove());

const run = (
  output: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> =>
  lockstepCommand(job.args(output, ...args), join(job.directory, "cache"), onEvent);

function digestOf({ code, stderr, of }: CommandOutcome): string | undefined {
  assert.equal(code, 0, stderr);
  return of("run.completed")[0]?.mastersSha256;
}

const reducersOf = ({ pid = 0 }: ChildProcess): readonly number[] =>
  descendantsOf(pid).filter((each) =>
    readFileSync(`/proc/${each}/cmdline`, "utf8").split("\0").includes("reducer"),
  );

const all = [2, 3].flatMap((step) => [1, 0, 3].map((reducer) => [step, reducer] as const));
const some = process.env["LOCKSTEP_TEST_ALL"] === "1" ? all : all.slice(0, 1);

for (const [step, reducer] of some) {
  for (const numReplicas of [1, 2]) {
    const name = `${numReplicas}-${step}-${reducer}`;
    test(`no half checkpoint is left, and the bits stay: copies-step-reducer ${name}`, {
      timeout: 240_000,
    }, async () => {
      let isKilled = false;
      const args = ["--reducer_processes", "4", "--reducer_replicas", String(numReplicas)];
      // Its checkpoint begins now.
      const outcome = await run(name, args, (event, child) => {
        if (isKilled || event.type !== "step.completed" || event.step !== step) return;
        isKilled = true;
        process.kill(reducersOf(child)[reducer] as number, "SIGKILL");
      });
      assert.equal(digestOf(outcome), expected);
      assert.ok(isKilled);
      const names = readdirSync(join(job.directory, name));
      assert.ok(!names.some((entry) => entry.includes(".tmp-")), names.join());
      const checkpoints = names.filter((entry) => entry.startsWith("checkpoint-"));
      assert.ok(checkpoints.includes(`checkpoint-${totalSteps}`));
      for (const checkpoint of checkpoints) {
        const directory = join(job.directory, name, checkpoint);
        await verifyChecksums(directory, "lockstep/checksums.json");
        assert.deepEqual(
          await storedTensors(directory),
          await storedTensors(join(job.directory, "threads", checkpoint)),
        );
      }
    });
  }
}
