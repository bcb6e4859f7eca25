import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Job } from "#lib/queue/job";
import { JobProcess } from "#run/job-process";

test("a checkpoint that is asked for before a run listens is asked for when it does", {
  timeout: 60_000,
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-job-process-"));
  t.after(() => rm(directory, { recursive: true }));
  const program = join(directory, "run.cjs");
  await writeFile(
    program,
    `process.on("SIGUSR1", () => {
      console.log("saved");
      process.exit(0);
    });
    console.log("listens");
    setTimeout(() => process.exit(3), 20_000);`,
  );
  const job = {
    ...{ id: "abcdefgh", epoch: 1, config: "", flags: [], directory, outputDir: directory },
  } as unknown as Job;
  const child = new JobProcess({
    ...{ job, directory, command: [process.execPath, program], flags: [], onLine: () => {} },
  });
  child.save();
  const { code, signal } = await child.ended;
  assert.deepEqual([code, signal], [0, null]);
  assert.match(await readFile(child.outputFile, "utf8"), /^listens\nsaved\n$/);
});

test("what a listener throws ends the run, and is not kept quiet", {
  timeout: 60_000,
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-job-process-"));
  t.after(() => rm(directory, { recursive: true }));
  const job = {
    ...{ id: "abcdefgh", epoch: 1, config: "", flags: [], directory, outputDir: directory },
  } as unknown as Job;
  const child = new JobProcess({
    ...{ job, directory, flags: [] },
    command: [process.execPath, "-e", "console.log('begun'); setInterval(() => {}, 1_000)"],
    onLine: () => assert.fail("a listener's fault"),
  });
  await assert.rejects(child.ended, /a listener's fault/);
});
