import type { ProcessIdentity } from "#lib/core/process-identity";

/**
 * - `queued`: waits for an agent, and for the jobs that it comes after;
 * - `running`: an agent has it;
 * - `done`: its run has ended, and its result is there;
 * - `paused`: stopped with a checkpoint, on somebody's request; it keeps its place;
 * - `cancelled`: somebody wants it no more;
 * - `failed`: it was refused, and would be again;
 * - `parked`: it failed as often as it may, and waits for a person.
 */
export const jobStates = [
  ...["queued", "running", "done", "paused", "cancelled", "failed", "parked"],
] as const as readonly JobState[];
type JobState = "queued" | "running" | "done" | "paused" | "cancelled" | "failed" | "parked";

/** Nobody runs it and nobody will, unless somebody asks for it again. */
export const isOver = (state: JobState): boolean => state !== "queued" && state !== "running";

/** What a person may ask of a job that runs. */
export type JobRequest = "cancel" | "pause";

/** Who runs a job. */
export interface JobOwner {
  readonly agent: string;
  /** Random, of one process of an agent. */
  readonly instance: string;
  readonly host: string;
  readonly process: ProcessIdentity;
  /** The job is given to another after so long without a beat. */
  readonly leaseMs: number;
}

/** Workers of a run: min_workers, workers, max_workers, and those that take part. */
export interface RunWorkers {
  readonly least: number;
  readonly planned: number;
  /** null: any number. */
  readonly most: number | null;
  readonly joined: number;
}

/** What a job's agent says of it, again and again. */
export interface JobBeat {
  readonly epoch: number;
  /** Rises while the agent lives; clocks of machines differ, so it is none. */
  readonly beats: number;
  readonly step: number;
  readonly totalSteps: number | null;
  readonly loss: number | null;
  /** host:port of the run's coordinator, where workers may join. */
  readonly address: string | null;
  /** Workers that the run is planned for and has. */
  readonly workers: RunWorkers | null;
  /** Of the run, by which its events are known. */
  readonly runId: string | null;
}

/** What is submitted. */
export interface JobRequestFields {
  /** For a person; not unique. */
  readonly name: string;
  /** YAML. */
  readonly config: string;
  /** Flags after it, as `--max_steps=10`. */
  readonly flags: readonly string[];
  /** Absolute: paths in the configuration are relative to it. */
  readonly directory: string;
  /** As the configuration has it. */
  readonly outputDir: string;
  /** Higher ones first. */
  readonly priority: number;
  /** Ids of jobs that have to be done before. */
  readonly after: readonly string[];
  /** So many tries in a row may end without a step more. */
  readonly maxTries: number;
}

export interface Job extends JobRequestFields {
  readonly id: string;
  /** ISO 8601, by the submitter's clock. */
  readonly submittedAt: string;
  readonly state: JobState;
  /** How often it was given to an agent: of two that believe to have it, the one with the higher epoch has it. */
  readonly epoch: number;
  /** In a row without progress, the present one included. */
  readonly tries: number;
  /** The last one that is known. */
  readonly step: number;
  /** Of its run; null: it was not begun yet. */
  readonly runId: string | null;
  /** The present owner; of a job that is over, the last one. */
  readonly owner: JobOwner | null;
  readonly asked: JobRequest | null;
  /** How many checkpoints were asked for. */
  readonly savesAsked: number;
  /** Of the last try that failed. */
  readonly error: string | null;
  /** When it was said that it failed, ISO 8601, by the clock of who said so. */
  readonly failedAt: string | null;
  /** Of a job that is done. */
  readonly result: JobResult | null;
  /** Random, of one write: by it a writer knows its own. */
  readonly written: string;
  /** Those before it, the latest first: whoever waited for its answer finds its own among them. */
  readonly writtenBefore: readonly string[];
}

export interface JobResult {
  readonly step: number;
  /** Absent where the run was finished before, and nothing was trained. */
  readonly mastersSha256: string | null;
}

/** A configuration is some kilobytes; one that holds more holds data. */
export const maxConfigBytes = 256 * 1024;
export const priorities = { lowest: -100, highest: 100 } as const;
export const maxTriesAllowed = 100;
/** A job is written to some times a minute at most, and an answer is waited for for seconds. */
export const maxWrittenBefore = 32;

/** Letters that cannot be taken for others. */
const idLetters = "abcdefghjkmnpqrstuvwxyz23456789";
export const jobIdPattern = /^[a-z0-9]{8}$/;

/** @param bytes at least 8 random ones */
export const jobIdOf = (bytes: Uint8Array): string =>
  Array.from(bytes.subarray(0, 8), (byte) => idLetters[byte % idLetters.length]).join("");
