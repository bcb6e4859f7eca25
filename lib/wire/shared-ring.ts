import { randomBytes, randomUUID } from "node:crypto";
import fs from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import {
  announcedPayloadBytes,
  chunkPayloadBytes,
  decodeFrame,
  encodeFrame,
  encodeHeader,
  type Frame,
  type FrameFields,
  frameHeaderBytes,
  joinFrame,
} from "./frame.js";

/**
 * Payloads of one bulk call between two processes of a machine: a ring of slots in a memory file, in which
 * the k-th frame with a payload has slot k modulo their number. The call carries the frames' headers, whose
 * checksums cover the payloads all the same. A socket costs five times as much: HTTP/2 cuts a mebibyte into
 * 64 pieces.
 *
 * The worker makes the file and removes its name at once, so nothing is left of a worker that is killed. It
 * offers `pid:fd:nonce`; the shard opens the file by the worker's descriptor and believes it is the one that
 * was meant when the nonce is in it. What runs elsewhere, or as another user, cannot, and gets the payloads
 * through the socket.
 *
 *    0  16 bytes  nonce
 *   16  f64       frames that the receiver has copied out
 *   from 4096     slots
 */
const directory = "/dev/shm";
const nonceBytes = 16;
const takenAt = 16;
const counterBytes = 8;
const slotsAt = 4096;
/** The receiver's lag is a few milliseconds; more would only leave the processor's cache. */
const numSlots = 8;
const fileBytes = slotsAt + numSlots * chunkPayloadBytes;
const pollMs = 1;

/** The key of an offer in a call's metadata. */
export const sharedRingKey = "lockstep-shared-ring";

const offerForm = /^([1-9]\d{0,9}):(0|[1-9]\d{0,9}):([0-9a-f]{32})$/;

/** A ring, and what the other side opens it by. */
export interface OfferedRing {
  readonly ring: SharedRing;
  readonly offer: string;
}

export class SharedRing {
  readonly #file: number;
  readonly #counter = Buffer.alloc(counterBytes);
  /** Where payloads go that have no place of their own. */
  #place: Buffer | undefined;
  /** Frames put or taken on this side. */
  #numFrames = 0;
  #isClosed = false;

  private constructor(file: number) {
    this.#file = file;
  }

  /** A ring and the offer of it; undefined where there is no memory for one. */
  static offer(): OfferedRing | undefined {
    let file: number | undefined;
    try {
      const path = `${directory}/lockstep-${randomUUID()}`;
      file = fs.openSync(path, "wx+", 0o600);
      fs.unlinkSync(path);
      // Every page is taken now: a slot that is written later cannot fail for want of memory.
      const written = fs.writeSync(file, Buffer.alloc(fileBytes), 0, fileBytes, 0);
      if (written !== fileBytes) throw new Error("no memory");
      return new SharedRing(file).offerAgain();
    } catch {
      if (file !== undefined) fs.closeSync(file);
      return undefined;
    }
  }

  /** The ring for another call, once neither side of the one before reads or writes it: fresh pages cost. */
  offerAgain(): OfferedRing {
    const head = Buffer.alloc(takenAt + counterBytes);
    const nonce = randomBytes(nonceBytes);
    nonce.copy(head);
    fs.writeSync(this.#file, head, 0, head.length, 0);
    this.#numFrames = 0;
    return { ring: this, offer: `${process.pid}:${this.#file}:${nonce.toString("hex")}` };
  }

  /** Opens an offered ring; undefined for one that cannot be reached from here or is none. */
  static accept(offer: string): SharedRing | undefined {
    const [, pid = "", descriptor = "", nonce = ""] = offerForm.exec(offer) ?? [];
    if (nonce === "") return undefined;
    const path = `/proc/${pid}/fd/${descriptor}`;
    let file: number | undefined;
    try {
      // Before it is opened: opening a device or a pipe may do something.
      if (!isMemoryFile(fs.statSync(path))) return undefined;
      file = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
      const found = Buffer.alloc(nonceBytes);
      fs.readSync(file, found, 0, nonceBytes, 0);
      if (isMemoryFile(fs.fstatSync(file)) && found.toString("hex") === nonce) {
        return new SharedRing(file);
      }
    } catch {
      // Another machine's process, or another user's.
    }
    if (file !== undefined) fs.closeSync(file);
    return undefined;
  }

  /**
   * Puts a payload into its slot, when that is free.
   *
   * @param payload may lie on shared memory
   * @param beforeCopy called when the slot is free, in the same turn in which the payload is copied; what it
   *   throws is thrown
   * @returns what the call carries of the frame; undefined when `isOver` became true first
   */
  async put(
    fields: FrameFields,
    payload: Uint8Array,
    isOver: () => boolean,
    beforeCopy: () => void = () => {},
  ): Promise<Buffer | undefined> {
    if (!fitsSlot(payload.length)) {
      beforeCopy();
      return encodeFrame(fields, payload);
    }
    while (this.#numFrames - this.#numTaken() >= numSlots) {
      await delay(pollMs);
      if (isOver()) return undefined;
    }
    beforeCopy();
    fs.writeSync(this.#file, payload, 0, payload.length, this.#slotAt(this.#numFrames));
    this.#numFrames++;
    return encodeHeader(fields, payload);
  }

  /** Whether the payload of a message lies in the ring. */
  holds(message: Buffer): boolean {
    return message.length === frameHeaderBytes && fitsSlot(announcedPayloadBytes(message));
  }

  /**
   * The frame of a message: with its payload out of the ring, where it lies there.
   *
   * @param place takes the payload, where it is as large; otherwise the payload may be read until the next
   *   call
   * @throws as decodeFrame
   */
  take(message: Buffer, place?: Uint8Array): Frame {
    if (!this.holds(message)) return decodeFrame(message);
    const numBytes = announcedPayloadBytes(message);
    const payload =
      place?.length === numBytes
        ? Buffer.from(place.buffer, place.byteOffset, numBytes)
        : (this.#place ??= Buffer.allocUnsafeSlow(chunkPayloadBytes)).subarray(0, numBytes);
    fs.readSync(this.#file, payload, 0, numBytes, this.#slotAt(this.#numFrames));
    this.#numFrames++;
    this.#counter.writeDoubleLE(this.#numFrames, 0);
    fs.writeSync(this.#file, this.#counter, 0, counterBytes, takenAt);
    return joinFrame(message, payload);
  }

  close(): void {
    if (!this.#isClosed) fs.closeSync(this.#file);
    this.#isClosed = true;
  }

  #numTaken(): number {
    fs.readSync(this.#file, this.#counter, 0, counterBytes, takenAt);
    return this.#counter.readDoubleLE(0);
  }

  #slotAt(index: number): number {
    return slotsAt + (index % numSlots) * chunkPayloadBytes;
  }
}

const fitsSlot = (payloadBytes: number): boolean =>
  payloadBytes > 0 && payloadBytes <= chunkPayloadBytes;

/** A file of the right size that has no name and is this user's. */
const isMemoryFile = (stats: fs.Stats): boolean =>
  stats.isFile() &&
  stats.nlink === 0 &&
  stats.size === fileBytes &&
  stats.uid === process.getuid?.();
