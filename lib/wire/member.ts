import { createHash, timingSafeEqual } from "node:crypto";
import type grpc from "@grpc/grpc-js";

/** What every call but Register shows: which registration, of which life of which run, it is of. */
export interface MemberPass {
  readonly runId: string;
  /** The life of the run's coordinator. */
  readonly epoch: number;
  readonly workerId: string;
  /** Known to the worker, the coordinator and its shards only. */
  readonly secret: string;
}

const runIdKey = "lockstep-run-id";
const epochKey = "lockstep-epoch";
const workerIdKey = "lockstep-worker-id";
const secretKey = "lockstep-member-secret";
/** Longest entry, characters: ids are far shorter. */
const maxEntryChars = 256;

/** The entries of a call's metadata. */
export const passEntries = (pass: MemberPass): Readonly<Record<string, string>> => ({
  [runIdKey]: pass.runId,
  [epochKey]: String(pass.epoch),
  [workerIdKey]: pass.workerId,
  [secretKey]: pass.secret,
});

/** What a call shows; what it does not show is empty, and nobody's. */
export function readPass(metadata: grpc.Metadata): MemberPass {
  const entry = (key: string): string => String(metadata.get(key)[0] ?? "").slice(0, maxEntryChars);
  const epoch = entry(epochKey);
  return {
    runId: entry(runIdKey),
    epoch: /^\d{1,10}$/.test(epoch) ? Number(epoch) : -1,
    workerId: entry(workerIdKey),
    secret: entry(secretKey),
  };
}

/** Compares in constant time. */
export function isSameSecret(one: string, other: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(one), digest(other));
}

/** 64 bits of a registration's run, epoch and worker: each of its frames carries them. */
export function memberTag({ runId, epoch, workerId }: Omit<MemberPass, "secret">): bigint {
  const text = JSON.stringify([runId, epoch, workerId]);
  return createHash("sha256").update(text).digest().readBigUInt64LE(0);
}
