import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import type { Job } from "#lib/queue/job";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { signalAll } from "#tests/support/processes";
import { bucket, credentials, S3Server } from "#tests/support/s3-server";
import { type StartedAgent, TestAgents } from "#tests/support/started-agent";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// Agents whose output directories are none of each other's, as on machines without a file system in common.

const limit = { timeout: 180_000, ...needs("gofakes3") };
let job: TinyJob;
let server: S3Server;
const agents = new TestAgents();

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ eval_on_start: false, eval_on_end: false, sample_prompt: null, workers: 1 },
    ...{ max_steps: 60, save_strategy: "steps", save_steps: 10, save_total_limit: 2 },
  });
});

after(async () => {
  agents.killAll();
  await job?.remove();
  await server?.remove();
});

const lockstep = async (...args: readonly string[]): Promise<readonly string[]> => {
  const { code, lines, stderr } = await lockstepCommand(
    args,
    ...([join(job.directory, "cache"), undefined, {}, process.execPath, job.directory] as const),
  );
  assert.equal(code, 0, stderr);
  return lines;
};

/** @param output of its runs, in place of the job's */
const startAgent = (output: string): StartedAgent => {
  const own = ["--queue=queue", `--name=${output}`, "--lease-ms=3000", "--jobs=1"];
  return agents.start(job.directory, [...own, "--", `--output_dir=${output}`]);
};

async function listed(): Promise<Job> {
  const [line = ""] = await lockstep("list", "--all", "--json", "--queue=queue");
  return JSON.parse(line) as Job;
}

test(
  "a job goes on from its store on another machine, and the one before changes nothing",
  limit,
  async () => {
    const calm = await lockstepCommand(
      ["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, "calm")],
      join(job.directory, "cache"),
    );
    const expected = calm.of("run.completed")[0]?.mastersSha256;
    assert.match(expected ?? "", /^[0-9a-f]{64}$/);
    const store = `--set=checkpoint_store=s3://${bucket}/queued`;
    await lockstep(
      "submit",
      "job.yaml",
      "--queue=queue",
      store,
      `--set=s3_endpoint=${server.endpoint}`,
    );

    const first = startAgent("first");
    const saved = new Promise<void>((resolve) => {
      first.child.stdout?.on("data", (chunk: Buffer) => {
        if (/saved .*after step/.test(chunk.toString())) resolve();
      });
    });
    await saved;
    signalAll(first.child.pid ?? 0, "SIGSTOP");
    const second = startAgent("second");
    assert.deepEqual(await once(second.child, "exit"), [0, null], second.said.join(""));
    assert.match(second.said.join(""), /goes on from s3:\S+, after \d+ steps/);
    const firstEnd = once(first.child, "exit");
    signalAll(first.child.pid ?? 0, "SIGCONT");
    await firstEnd;
    assert.match(first.said.join(""), /was given to another agent|belongs to another agent/);
    const { state, epoch, result } = await listed();
    assert.deepEqual([state, epoch], ["done", 2]);
    assert.equal(result?.mastersSha256, expected);
    assert.ok(!existsSync(join(job.directory, "first/model.safetensors")));
  },
);
