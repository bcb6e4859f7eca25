import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "#lib/core/paths";
import { fenceEnvironment } from "#run/job-fence";
import { keptSteps } from "#tests/support/kept-steps";

const numSteps = 6;
let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-life-"));
});
after(() => rm(directory, { recursive: true, force: true }));

/** The run of a job that was given for the n-th time. */
function life(configFile: string, epoch: number, more: NodeJS.ProcessEnv = {}): ChildProcess {
  const program = join(packageRoot, "dist/tests/support/queued-run.js");
  return spawn(process.execPath, [program, configFile], {
    stdio: ["ignore", "ignore", "ignore", "ipc"],
    env: { ...process.env, ...fenceEnvironment({ job: "abcdefgh", epoch }), ...more },
  });
}

/** Waits until a process is stopped, of which node tells nothing. @throws once there is none */
async function untilStopped({ pid }: ChildProcess): Promise<void> {
  const isStopped = async (): Promise<boolean> =>
    /\) T /.test(await readFile(`/proc/${pid}/stat`, "utf8"));
  while (!(await isStopped())) await delay(20);
}

test("a run that was stopped while its job was given on makes no step more", {
  timeout: 60_000,
}, async () => {
  const outputDir = join(directory, "out");
  const configFile = join(directory, "job.json");
  await writeFile(configFile, JSON.stringify({ steps: numSteps, output_dir: outputDir }));
  const first = life(configFile, 1, { LOCKSTEP_TEST_STOPS_AFTER: "1" });
  const firstEnd = once(first, "exit");
  await untilStopped(first);
  const [code] = (await once(life(configFile, 2), "exit")) as [number | null];
  assert.equal(code, 0);
  const made = keptSteps(outputDir);
  first.kill("SIGCONT");
  const [firstCode] = (await firstEnd) as [number | null];
  assert.equal(firstCode, 1);
  assert.deepEqual(keptSteps(outputDir), made);
  assert.deepEqual(
    made.map(({ step }) => step),
    Array.from({ length: numSteps }, (_, i) => i + 1),
  );
  assert.deepEqual(new Set(made.map(({ epoch }) => epoch)), new Set([1, 2]));
});
