import { crc32 } from "node:zlib";
import { LockstepError } from "#lib/core/errors/index";

/**
 * A chunk of a tensor stream: 36 bytes of little-endian header, then the payload.
 *
 *   0  u32  magic
 *   4  u32  step (gradients) or version (parameters)
 *   8  u32  gradient group; 0 for parameters
 *  12  u64  lease; 0 for parameters
 *  20  u64  byte offset of the payload in the shard's range in wire form
 *  28  u32  payload bytes
 *  32  u32  CRC-32 (zlib's polynomial) of header bytes 0 to 31 and the payload
 */
export interface Frame {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  readonly offset: number;
  readonly payload: Buffer;
}

const frameMagic = 0x4b_43_4f_4c; // "LOCK"
export const frameHeaderBytes = 36;
const checkedHeaderBytes = 32;

/** Measured optimum of grpc-js on loopback; smaller chunks pay per message, larger ones for copies. */
export const chunkPayloadBytes = 1024 * 1024;
/** What a receiver accepts at most in one frame: room for another chunk size on the other side. */
export const maxFramePayloadBytes = 4 * 1024 * 1024;

/** @param source copied; may lie on shared memory. */
export function encodeFrame(
  fields: Omit<Frame, "payload">,
  source: Uint8Array,
  sourceStart: number,
  payloadBytes: number,
): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + payloadBytes);
  frame.writeUInt32LE(frameMagic, 0);
  frame.writeUInt32LE(fields.step, 4);
  frame.writeUInt32LE(fields.group, 8);
  writeSafeInteger(frame, fields.lease, 12);
  writeSafeInteger(frame, fields.offset, 20);
  frame.writeUInt32LE(payloadBytes, 28);
  frame.set(source.subarray(sourceStart, sourceStart + payloadBytes), frameHeaderBytes);
  frame.writeUInt32LE(frameChecksum(frame), 32);
  return frame;
}

/**
 * @returns a frame whose payload is a view of `message`.
 * @throws E_FRAME_INVALID when the header contradicts the message, E_FRAME_CORRUPT when bytes changed.
 */
export function decodeFrame(message: Buffer): Frame {
  if (message.length < frameHeaderBytes) {
    throw invalid(`it has ${message.length} bytes, fewer than its header's ${frameHeaderBytes}`);
  }
  if (message.readUInt32LE(0) !== frameMagic) throw invalid("its first four bytes are wrong");
  const payloadBytes = message.readUInt32LE(28);
  if (payloadBytes !== message.length - frameHeaderBytes) {
    throw invalid(
      `its header says ${payloadBytes} payload bytes, ${message.length - frameHeaderBytes} came`,
    );
  }
  if (payloadBytes > maxFramePayloadBytes) {
    throw invalid(`${payloadBytes} payload bytes exceed the limit of ${maxFramePayloadBytes}`);
  }
  const step = message.readUInt32LE(4);
  const group = message.readUInt32LE(8);
  const lease = readSafeInteger(message, 12);
  const offset = readSafeInteger(message, 20);
  if (message.readUInt32LE(32) !== frameChecksum(message)) {
    throw new LockstepError("E_FRAME_CORRUPT", { step, group, offset, payloadBytes });
  }
  if (!Number.isSafeInteger(lease) || !Number.isSafeInteger(offset)) {
    throw invalid("its lease or offset is beyond 2^53");
  }
  return { step, group, lease, offset, payload: message.subarray(frameHeaderBytes) };
}

/**
 * Frames of a whole range, in order, made when asked for; an empty range is one empty frame.
 *
 * @param beforeChunk called right before bytes are copied; what it throws ends the iteration
 */
export function* chunks(
  wireBytes: Uint8Array,
  fields: { readonly step: number; readonly group: number; readonly lease: number },
  beforeChunk?: (payloadBytes: number) => void,
): Generator<Buffer> {
  let offset = 0;
  do {
    const payloadBytes = Math.min(chunkPayloadBytes, wireBytes.length - offset);
    beforeChunk?.(payloadBytes);
    yield encodeFrame({ ...fields, offset }, wireBytes, offset, payloadBytes);
    offset += payloadBytes;
  } while (offset < wireBytes.length);
}

function frameChecksum(frame: Buffer): number {
  return crc32(frame.subarray(frameHeaderBytes), crc32(frame.subarray(0, checkedHeaderBytes)));
}

function writeSafeInteger(buffer: Buffer, value: number, at: number): void {
  buffer.writeUInt32LE(value % 2 ** 32, at);
  buffer.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readSafeInteger(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4) * 2 ** 32;
}

function invalid(reason: string): LockstepError {
  return new LockstepError("E_FRAME_INVALID", { reason });
}
