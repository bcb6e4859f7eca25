import type grpc from "@grpc/grpc-js";
import { LockstepError } from "#lib/core/errors/index";
import { frameHeaderBytes, maxFramePayloadBytes } from "./frame.js";

/** Method definitions of the bulk service: raw buffers, no protobuf between a tensor and the socket. */
const identity = (buffer: Buffer): Buffer => buffer;

const define = (
  name: string,
  streams: { readonly requestStream: boolean; readonly responseStream: boolean },
): grpc.MethodDefinition<Buffer, Buffer> => ({
  path: `/lockstep.v1.Bulk/${name}`,
  ...streams,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
});

export const pushGradientsMethod = define("PushGradients", {
  requestStream: true,
  responseStream: false,
});
export const pullParametersMethod = define("PullParameters", {
  requestStream: false,
  responseStream: true,
});

/** Largest message of the bulk service, either way. */
export const maxBulkMessageBytes = frameHeaderBytes + maxFramePayloadBytes;

/**
 * What became of a pushed group on this shard: `complete` (its last byte arrived with this push),
 * `duplicate` (another push had completed it), `stale` (its step is over).
 */
export type PushOutcome = "complete" | "duplicate" | "stale";

export interface PushReply {
  readonly outcome: PushOutcome;
  readonly receivedBytes: number;
}

const outcomes: readonly PushOutcome[] = ["complete", "duplicate", "stale"];
const replyMagic = 0x4b_43_41_4c; // "LACK"
const pullMagic = 0x4c_4c_55_50; // "PULL"

/** u32 magic, u32 outcome, f64 received bytes. */
export function encodePushReply(reply: PushReply): Buffer {
  const buffer = Buffer.alloc(16);
  buffer.writeUInt32LE(replyMagic, 0);
  buffer.writeUInt32LE(outcomes.indexOf(reply.outcome), 4);
  buffer.writeDoubleLE(reply.receivedBytes, 8);
  return buffer;
}

export function decodePushReply(buffer: Buffer): PushReply {
  const outcome = buffer.length === 16 ? outcomes[buffer.readUInt32LE(4)] : undefined;
  if (outcome === undefined || buffer.readUInt32LE(0) !== replyMagic) {
    throw new LockstepError("E_FRAME_INVALID", { reason: "it is not a reply to PushGradients" });
  }
  return { outcome, receivedBytes: buffer.readDoubleLE(8) };
}

/**
 * What a shard serves of its range: what is trained and weights that stay as they are, in wire form; to a shard of the
 * same range also all that it keeps, masters first (`kept`), and the gradient of a step (`sum`), as its memory has them;
 * to any other shard that saves tensors which go on in this range its masters and their average.
 */
const spaces = ["trained", "frozen", "kept", "sum", "masters", "average"] as const;
type Space = (typeof spaces)[number];

/** The one version of the frozen weights. */
export const frozenVersion = 0;

export interface PullRequest {
  /** @default "trained" */
  readonly space?: Space;
  /** Of a `sum` the step. */
  readonly version: number;
  /** Bytes of the shard's range; absent: all of it. */
  readonly part?: { readonly offset: number; readonly numBytes: number };
}

const pullBytes = 12;
const pullPartBytes = 28;

/** u32 magic, u32 space, u32 version; of a part also f64 offset, f64 bytes. */
export function encodePullRequest({ space = "trained", version, part }: PullRequest): Buffer {
  const buffer = Buffer.alloc(part === undefined ? pullBytes : pullPartBytes);
  buffer.writeUInt32LE(pullMagic, 0);
  buffer.writeUInt32LE(spaces.indexOf(space), 4);
  buffer.writeUInt32LE(version, 8);
  if (part !== undefined) {
    buffer.writeDoubleLE(part.offset, 12);
    buffer.writeDoubleLE(part.numBytes, 20);
  }
  return buffer;
}

export function decodePullRequest(buffer: Buffer): PullRequest {
  const isSized = buffer.length === pullBytes || buffer.length === pullPartBytes;
  const space = isSized ? spaces[buffer.readUInt32LE(4)] : undefined;
  if (space === undefined || buffer.readUInt32LE(0) !== pullMagic) {
    throw new LockstepError("E_FRAME_INVALID", { reason: "it is not a PullParameters request" });
  }
  const version = buffer.readUInt32LE(8);
  if (buffer.length === pullBytes) return { space, version };
  const part = { offset: buffer.readDoubleLE(12), numBytes: buffer.readDoubleLE(20) };
  return { space, version, part };
}

/** @throws E_FRAME_INVALID for bytes that the range does not have */
export function partOf(bytes: Uint8Array, { part }: PullRequest): Uint8Array {
  if (part === undefined) return bytes;
  const { offset, numBytes } = part;
  const isWithin =
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(numBytes) &&
    offset >= 0 &&
    numBytes >= 0 &&
    offset + numBytes <= bytes.length;
  if (!isWithin) {
    const reason = `${numBytes} bytes at ${offset} are not in the shard's ${bytes.length}`;
    throw new LockstepError("E_FRAME_INVALID", { reason });
  }
  return bytes.subarray(offset, offset + numBytes);
}
