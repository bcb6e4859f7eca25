import assert from "node:assert/strict";
import type { Job, JobBeat } from "#lib/queue/job";
import { readBeat, readJob } from "#lib/queue/job-records";
import type { Target } from "#tests/fuzz/target";

const job: Job = {
  ...{ id: "abcdefgh", name: "job", config: "max_steps: 1\n", flags: ["--max_steps=2"] },
  ...{ directory: "/jobs", outputDir: "/jobs/out", priority: -3, after: ["bcdefghj"], maxTries: 3 },
  ...{ submittedAt: "2026-01-01T00:00:00.000Z", state: "running", epoch: 2, tries: 1, step: 7 },
  owner: {
    ...{ agent: "a", instance: "b", host: "c", leaseMs: 30_000 },
    process: { pid: 1, startTicks: null, domain: "d" },
  },
  ...{ runId: "0123456789abcdef", asked: "pause", savesAsked: 1, error: "an error" },
  failedAt: "2026-01-01T00:01:00.000Z",
  ...{ result: { step: 7, mastersSha256: null }, written: "e" },
  writtenBefore: ["f", "0"],
};
const beat: JobBeat = {
  ...{ epoch: 2, beats: 9, step: 7, totalSteps: 10, loss: 1.5, address: "127.0.0.1:1" },
  ...{ workers: { least: 1, planned: 2, most: 3, joined: 1 }, runId: null },
};
const bytesOf = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

export const targets: readonly Target[] = [
  {
    name: "queue/job",
    share: 5,
    open: async () => ({
      kind: "bytes",
      form: "json",
      corpus: [bytesOf(job)],
      read(input) {
        const read = readJob(new TextDecoder().decode(input), job.id, "p");
        const written = JSON.stringify(read);
        // -0 is written as 0.
        assert.equal(JSON.stringify(readJob(written, job.id, "p")), written);
      },
    }),
  },
  {
    name: "queue/beat",
    share: 2,
    open: async () => ({
      kind: "bytes",
      form: "json",
      corpus: [bytesOf(beat)],
      read(input) {
        // What is none says nothing.
        const read = readBeat(new TextDecoder().decode(input));
        const written = JSON.stringify(read);
        assert.equal(JSON.stringify(readBeat(written)), written);
      },
    }),
  },
];
