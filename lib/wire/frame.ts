import { crc32 } from "node:zlib";
import { LockstepError } from "#lib/core/errors/index";

/**
 * A chunk of a tensor stream: 48 bytes of little-endian header, then the payload.
 *
 *   0  u32  magic
 *   4  u32  step (gradients) or version (parameters)
 *   8  u32  gradient group; 0 for parameters
 *  12  u64  lease; 0 for parameters
 *  20  u64  byte offset of the payload in the shard's range in wire form
 *  28  u32  payload bytes
 *  32  u64  whose it is: memberTag of the worker's registration
 *  40  u32  CRC-32 (zlib's polynomial) of the payload
 *  44  u32  CRC-32 of header bytes 0 to 43
 */
export interface Frame {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  readonly offset: number;
  readonly member: bigint;
  /** CRC-32 of the payload. */
  readonly checksum: number;
  readonly payload: Buffer;
}

/** What a sender says of a chunk. */
export type FrameFields = Omit<Frame, "payload" | "checksum">;

const frameMagic = 0x4b_43_4f_4c; // "LOCK"
export const frameHeaderBytes = 48;
const payloadChecksumAt = 40;
const headerChecksumAt = 44;

/** Measured optimum of grpc-js on loopback; smaller chunks pay per message, larger ones for copies. */
export const chunkPayloadBytes = 1024 * 1024;
/** What a receiver accepts at most in one frame: room for another chunk size on the other side. */
export const maxFramePayloadBytes = 4 * 1024 * 1024;

/** @param payload copied; may lie on shared memory. */
export function encodeFrame(fields: FrameFields, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + payload.length);
  frame.set(payload, frameHeaderBytes);
  writeHeader(frame, fields, frame.subarray(frameHeaderBytes));
  return frame;
}

/** The header alone of a frame whose payload travels beside it. @param payload may lie on shared memory */
export function encodeHeader(fields: FrameFields, payload: Uint8Array): Buffer {
  const header = Buffer.allocUnsafe(frameHeaderBytes);
  writeHeader(header, fields, payload);
  return header;
}

function writeHeader(header: Buffer, fields: FrameFields, payload: Uint8Array): void {
  header.writeUInt32LE(frameMagic, 0);
  header.writeUInt32LE(fields.step, 4);
  header.writeUInt32LE(fields.group, 8);
  writeSafeInteger(header, fields.lease, 12);
  writeSafeInteger(header, fields.offset, 20);
  header.writeUInt32LE(payload.length, 28);
  header.writeBigUInt64LE(fields.member, 32);
  header.writeUInt32LE(crc32(payload), payloadChecksumAt);
  header.writeUInt32LE(headerChecksum(header), headerChecksumAt);
}

/** Payload bytes that a header announces; 0 for a message that is too short to tell. */
export const announcedPayloadBytes = (message: Buffer): number =>
  message.length < frameHeaderBytes ? 0 : message.readUInt32LE(28);

/**
 * @returns a frame whose payload is a view of `message`.
 * @throws E_FRAME_INVALID when the header contradicts the message, E_FRAME_CORRUPT when bytes changed.
 */
export function decodeFrame(message: Buffer): Frame {
  if (message.length < frameHeaderBytes) {
    throw invalid(`it has ${message.length} bytes, fewer than its header's ${frameHeaderBytes}`);
  }
  return joinFrame(message.subarray(0, frameHeaderBytes), message.subarray(frameHeaderBytes));
}

/**
 * A header and its payload.
 *
 * @returns a frame with this very payload
 * @throws as decodeFrame
 */
export function joinFrame(header: Buffer, payload: Buffer): Frame {
  if (header.readUInt32LE(0) !== frameMagic) throw invalid("its first four bytes are wrong");
  const payloadBytes = header.readUInt32LE(28);
  if (payloadBytes !== payload.length) {
    throw invalid(`its header says ${payloadBytes} payload bytes, ${payload.length} came`);
  }
  if (payloadBytes > maxFramePayloadBytes) {
    throw invalid(`${payloadBytes} payload bytes exceed the limit of ${maxFramePayloadBytes}`);
  }
  const step = header.readUInt32LE(4);
  const group = header.readUInt32LE(8);
  const lease = readSafeInteger(header, 12);
  const offset = readSafeInteger(header, 20);
  const checksum = header.readUInt32LE(payloadChecksumAt);
  const isWhole =
    header.readUInt32LE(headerChecksumAt) === headerChecksum(header) && checksum === crc32(payload);
  if (!isWhole) {
    throw new LockstepError("E_FRAME_CORRUPT", { step, group, offset, payloadBytes });
  }
  if (!Number.isSafeInteger(lease) || !Number.isSafeInteger(offset)) {
    throw invalid("its lease or offset is beyond 2^53");
  }
  const member = header.readBigUInt64LE(32);
  return { step, group, lease, offset, member, checksum, payload };
}

/** A piece of a range, small enough for a frame. */
interface Chunk {
  readonly offset: number;
  /** A view of the range. */
  readonly payload: Uint8Array;
}

/** A whole range in pieces, in order; an empty range is one empty piece. */
export function* chunks(wireBytes: Uint8Array): Generator<Chunk> {
  let offset = 0;
  do {
    const payload = wireBytes.subarray(offset, offset + chunkPayloadBytes);
    yield { offset, payload };
    offset += payload.length;
  } while (offset < wireBytes.length);
}

const headerChecksum = (header: Buffer): number => crc32(header.subarray(0, headerChecksumAt));

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
