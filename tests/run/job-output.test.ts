import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import type { Job } from "#lib/queue/job";
import { boundedLines } from "#run/bounded-lines";
import { jobFolder } from "#run/job-folders";
import { JobProcess } from "#run/job-process";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-job-process-"));
});
after(() => rm(root, { recursive: true, force: true }));

test("lines are cut, and what was cut off is none", async () => {
  const text = ["one", "x".repeat(25), "", "\u00e9\u20ac\u{1f600}", "last"].join("\n");
  for (const size of [1, 3, 1_000]) {
    const bytes = Buffer.from(text);
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
      bytes.subarray(i * size, (i + 1) * size),
    );
    const lines: string[] = [];
    for await (const line of boundedLines(Readable.from(chunks), 10)) lines.push(line);
    assert.deepEqual(lines, ["one", "x".repeat(10), "", "\u00e9\u20ac\u{1f600}", "last"]);
  }
});

test("a run has ended though a process of its holds its output open", {
  timeout: 60_000,
}, async () => {
  // The run is killed, what it started lives.
  const script = `
    const { spawn } = require("node:child_process");
    const left = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "inherit" });
    console.log("left " + left.pid);
    process.kill(process.pid, "SIGKILL");
  `;
  const said: string[] = [];
  const run = new JobProcess({
    job: {
      id: "abcdefgh",
      epoch: 1,
      flags: [],
      config: "",
      directory: root,
      outputDir: root,
    } as unknown as Job,
    directory: root,
    command: [process.execPath, "-e", script],
    flags: [],
    onLine: (line) => said.push(line),
  });
  const { signal } = await run.ended;
  const pid = Number(/left (\d+)/.exec(said.join())?.[1]);
  assert.equal(signal, "SIGKILL");
  process.kill(pid, "SIGKILL");
});

test("a machine keeps the folders of the last jobs", async () => {
  const directory = join(root, "jobs");
  await mkdir(join(directory, "other"), { recursive: true });
  const ids = Array.from({ length: 205 }, (_, i) => `job${String(i).padStart(5, "0")}`);
  for (const [i, id] of ids.entries()) {
    await mkdir(join(directory, id));
    await utimes(join(directory, id), i, i);
  }
  jobFolder(directory, "newnewne");
  const kept = await readdir(directory);
  assert.deepEqual(new Set(kept), new Set(["other", "newnewne", ...ids.slice(6)]));
});
