import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import {
  type Job,
  type JobBeat,
  jobIdPattern,
  jobStates,
  maxConfigBytes,
  maxTriesAllowed,
  maxWrittenBefore,
  priorities,
} from "./job.js";
import { maxRecordBytes } from "./record-store.js";

/*
 * Records as text. They come from whoever may write into the queue, so they are checked like any bytes from outside;
 * fields of later versions are kept out.
 */

const count = z.int().min(0);
const text = (maxChars: number) => z.string().max(maxChars);
const id = z.string().regex(jobIdPattern);
/** Paths and flags; the longest path of a kernel is 4096 bytes. */
const word = text(8_192);

const owner = z.object({
  agent: text(256),
  instance: text(64),
  host: text(256),
  process: z.object({
    pid: count,
    startTicks: count.nullable(),
    domain: text(256).nullable(),
  }),
  leaseMs: count,
});

const job = z.object({
  id,
  name: text(256),
  config: text(maxConfigBytes),
  flags: z.array(word).max(256),
  directory: word,
  outputDir: word,
  priority: z.int().min(priorities.lowest).max(priorities.highest),
  after: z.array(id).max(1_000),
  maxTries: z.int().min(1).max(maxTriesAllowed),
  submittedAt: text(64),
  state: z.enum(jobStates as readonly [Job["state"], ...Job["state"][]]),
  epoch: count,
  tries: count,
  step: count,
  runId: text(64).nullable().default(null),
  owner: owner.nullable(),
  asked: z.enum(["cancel", "pause"]).nullable(),
  savesAsked: count,
  error: text(8_192).nullable(),
  failedAt: text(64).nullable().default(null),
  result: z.object({ step: count, mastersSha256: text(64).nullable() }).nullable(),
  written: text(64),
  writtenBefore: z.array(text(64)).max(maxWrittenBefore).default([]),
});

const beat = z.object({
  epoch: count,
  beats: count,
  step: count,
  totalSteps: count.nullable(),
  loss: z.number().nullable(),
  address: text(512).nullable(),
  workers: z
    .object({
      least: count.default(1),
      planned: count,
      most: count.nullable().default(null),
      joined: count,
    })
    .nullable(),
  runId: text(64).nullable().default(null),
});

function read<T>(schema: z.ZodType<T>, value: string, key: string, place: string): T {
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch {
    throw new LockstepError("E_QUEUE_RECORD", { key, place, problem: "it is no JSON" });
  }
  const { success, data, error } = schema.safeParse(parsed);
  if (success) return data;
  const [issue] = error.issues;
  const problem = `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "it is none"}`;
  throw new LockstepError("E_QUEUE_RECORD", { key, place, problem });
}

/** @throws E_QUEUE_RECORD */
export function readJob(value: string, key: string, place: string): Job {
  const found = read(job, value, key, place);
  if (found.id === key) return found;
  throw new LockstepError("E_QUEUE_RECORD", { key, place, problem: `it is that of ${found.id}` });
}

/** For what becomes of a job: its agent, the last error with each character escaped, ids of writes. */
const roomBytes = 64 * 1024;
const maxNewBytes = maxRecordBytes - roomBytes;

/** A new job as a record. @throws E_QUEUE_RECORD for one that nobody could read */
export function newRecordOf(job: Job, place: string): string {
  const value = JSON.stringify(job);
  const bytes = Buffer.byteLength(value);
  if (bytes > maxNewBytes) {
    const problem = `it would have ${bytes} bytes of at most ${maxNewBytes}`;
    throw new LockstepError("E_QUEUE_RECORD", { key: job.id, place, problem });
  }
  readJob(value, job.id, place);
  return value;
}

/** What an agent says of a job; of a record that is none, nothing is known. */
export function readBeat(value: string | undefined): JobBeat | undefined {
  try {
    return value === undefined ? undefined : read(beat, value, "", "");
  } catch {
    return undefined;
  }
}
