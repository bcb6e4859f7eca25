import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// The real engine in real processes: whoever computed, whatever died, the same bits.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({ max_steps: 5 });
});
after(() => job.remove());

/** The step's batch and its groups are the job's, so the number of workers must not matter. */
const fixedGroups = ["--global-batch-size", "8", "--gradient-groups", "4"];

const run = (
  command: "train" | "train-local",
  name: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
) =>
  lockstepCommand(
    [
      command,
      job.configFile,
      ...(command === "train" ? ["--json-logs"] : []),
      "--output-dir",
      join(job.directory, name),
      ...fixedGroups,
      ...args,
    ],
    join(job.directory, "cache"),
    onEvent,
  );

/** Of one process, by precision. */
const digests = new Map<string, string>();

async function digestOfOneProcess(precision: string): Promise<string> {
  const known = digests.get(precision);
  if (known !== undefined) return known;
  const local = await run("train-local", `local${precision}`, [precision]);
  assert.equal(local.code, 0, local.stderr);
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  assert.ok(digest !== undefined, local.lines.join("\n"));
  digests.set(precision, digest);
  return digest;
}

for (const precision of ["--bf16", "--no-bf16"]) {
  test(`one process, one, two and four workers end with the same weights (${precision})`, async () => {
    const expected = await digestOfOneProcess(precision);
    for (const numWorkers of [1, 2, 4]) {
      const name = `workers-${numWorkers}${precision}`;
      const cluster = await run("train", name, [precision, "--workers", String(numWorkers)]);
      assert.equal(cluster.code, 0, cluster.stderr);
      assert.equal(cluster.of("worker.joined").length >= 1, true);
      assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected, name);
    }
  });
}

test("kill -9 of a worker in step 3 changes nothing", async () => {
  const pids = new Map<string, number>();
  let killed = "";
  const broken = await run("train", "killed", ["--bf16"], (event) => {
    if (event.type === "worker.joined") pids.set(event.workerId, event.pid);
    // A lease of step 3 (index 2) has just gone out, so the worker dies with the group in hand.
    if (event.type === "group.leased" && event.step === 2 && killed === "") {
      killed = event.workerId;
      process.kill(pids.get(killed) as number, "SIGKILL");
    }
  });
  assert.equal(broken.code, 0, broken.stderr);
  assert.ok(broken.of("worker.lost").some(({ workerId }) => workerId === killed));
  const expected = await digestOfOneProcess("--bf16");
  assert.equal(broken.of("run.completed")[0]?.mastersSha256, expected);
  assert.equal(broken.of("step.completed").length, 5);
});
