import { createHash } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";
import { blockElements, type ElementRange } from "#lib/core/parameter-layout";
import { type ShardArrays, zeroArrays } from "#lib/core/shard-arrays";
import { readCutRange, wirePieces, wireRangeBytes } from "#lib/core/wire-space";
import { type ChosenOptimizer, openOptimizer } from "#lib/optim/index";
import { maxPieceBytes } from "#lib/wire/reducer-commands";
import type {
  LoadedFiles,
  ShardAnswer,
  ShardCommand,
  ShardFiles,
} from "#lib/wire/reducer-messages";
import { type RangeOf, rangeOf, type ShardSource } from "#coordinator/shards";

interface LoadedShard extends RangeOf {
  readonly optimizer: ChosenOptimizer;
  readonly address: string;
  readonly call: (command: ShardCommand) => Promise<ShardAnswer>;
}

/** What a shard calls its masters, beside what the optimizer keeps. */
export const mastersArray = "masters";
const frozenArray = "frozen";
/** Elements of a piece in float32. */
const pieceElements = maxPieceBytes / 4;

/**
 * How a shard in another process comes to its range: what lies in files it reads by itself, the rest is sent in pieces,
 * so that nobody has more of the model than a shard.
 */
export class RemoteLoad {
  readonly #parts: LoadedShard;
  readonly #range: ElementRange;

  constructor(parts: LoadedShard) {
    this.#parts = parts;
    this.#range = rangeOf(parts);
  }

  /** @throws E_REDUCER_FILES where the process reads other files than this one, or none */
  async load(source: ShardSource): Promise<void> {
    const { files = {}, frozen: frozenSource } = source;
    const { shardIndex, address } = this.#parts;
    const own = this.#ownFiles(files);
    const [read, seen] = await Promise.all([
      own === undefined ? undefined : this.#parts.call({ kind: "loadFiles", files: own }),
      own === undefined ? undefined : this.#digestsOf(own, source),
    ]);
    for (const of of ["mastersSha256", "frozenSha256"] as const) {
      if (read?.kind !== "loaded" || seen === undefined || read.files[of] === seen[of]) continue;
      const directory = (of === "mastersSha256" ? own?.masters : own?.frozen)?.directory ?? "";
      const reason = `shard ${shardIndex} at ${address} finds other weights there than the coordinator`;
      throw new LockstepError("E_REDUCER_FILES", { directory, reason });
    }
    if (own?.checkpoint === undefined) {
      for (const range of this.#unread(own)) await this.#fill(range, source);
    }
    if (frozenSource !== undefined && own?.frozen === undefined)
      await this.#fillFrozen(frozenSource);
  }

  /** Of all files those that have something of the range; undefined: none do. */
  #ownFiles(files: ShardFiles): ShardFiles | undefined {
    const { checkpoint, masters: model, frozen: stayed } = files;
    const { start, end } = this.#range;
    const { tensors } = this.#parts.layout;
    const isOwn = ({ tensor }: { readonly tensor: number }): boolean => {
      const slot = tensors[tensor];
      return slot !== undefined && slot.offset < end && slot.offset + slot.size > start;
    };
    const own: ShardFiles = {
      ...(checkpoint === undefined ? {} : { checkpoint }),
      ...(checkpoint !== undefined || model === undefined
        ? {}
        : { masters: { ...model, tensors: model.tensors.filter(isOwn) } }),
      ...(stayed === undefined ? {} : { frozen: stayed }),
    };
    return Object.keys(own).length === 0 ? undefined : own;
  }

  /** What the process should have read, as this one reads it. */
  async #digestsOf(own: ShardFiles, source: ShardSource): Promise<LoadedFiles> {
    const { start, end } = this.#range;
    const hash = createHash("sha256");
    for (const { tensor } of inOrder(own.masters?.tensors ?? [])) {
      const slot = this.#parts.layout.tensors[tensor];
      if (slot === undefined) continue;
      const range = {
        start: Math.max(start, slot.offset),
        end: Math.min(end, slot.offset + slot.size),
      };
      for (const piece of piecesOf(range)) {
        const arrays = zeroArrays(piece.end - piece.start, []);
        await source.fill({ range: piece, ...arrays });
        hash.update(viewOf(arrays.masters));
      }
    }
    return {
      mastersSha256: own.masters === undefined ? "" : hash.digest("hex"),
      frozenSha256:
        own.frozen === undefined || source.frozen === undefined
          ? ""
          : await this.#frozenDigest(source.frozen),
    };
  }

  async #frozenDigest(source: NonNullable<ShardSource["frozen"]>): Promise<string> {
    const hash = createHash("sha256");
    for await (const { values } of this.#frozenPieces(source)) hash.update(values);
    return hash.digest("hex");
  }

  /** The range in wire form, in pieces of whole tensors where it does not cut them: some are made as a whole. */
  async *#frozenPieces({ layout, load }: NonNullable<ShardSource["frozen"]>) {
    const { shardIndex, numShards } = this.#parts;
    const range = rangeOf({ shardIndex, numShards, layout });
    let offset = 0;
    for (const piece of wirePieces(layout)) {
      const part = {
        start: Math.max(range.start, piece.start),
        end: Math.min(range.end, piece.end),
      };
      if (part.start >= part.end) continue;
      const values = new Uint8Array(wireRangeBytes(layout, part));
      await readCutRange(layout, part, load, values);
      yield { offset, values };
      offset += values.length;
    }
  }

  async #fillFrozen(source: NonNullable<ShardSource["frozen"]>): Promise<void> {
    for await (const { offset, values } of this.#frozenPieces(source)) {
      for (let at = 0; at < values.length; at += maxPieceBytes) {
        const part = values.subarray(at, at + maxPieceBytes);
        await this.#parts.call({
          kind: "fill",
          array: frozenArray,
          offset: offset + at,
          values: part,
        });
      }
    }
  }

  /** What of the range the process reads nowhere, in whole blocks. */
  #unread(own: ShardFiles | undefined): readonly ElementRange[] {
    const { start, end } = this.#range;
    if (own?.masters === undefined) return [this.#range];
    const named = new Set(own.masters.tensors.map(({ tensor }) => tensor));
    const unread = new Set<number>();
    for (const [tensor, { offset, size }] of this.#parts.layout.tensors.entries()) {
      if (named.has(tensor)) continue;
      const last = Math.min(end, offset + size);
      const first = Math.floor(Math.max(start, offset) / blockElements);
      for (let block = first; block * blockElements < last; block++) unread.add(block);
    }
    return [...unread].map((block) => ({
      start: block * blockElements,
      end: (block + 1) * blockElements,
    }));
  }

  /** Sends what `fill` makes of a range, in pieces; zeros are there. */
  async #fill(range: ElementRange, { fill }: ShardSource): Promise<void> {
    const { packing } = openOptimizer(this.#parts.optimizer);
    for (const piece of piecesOf(range)) {
      const { masters: values, states } = zerosOf(this.#parts.optimizer, piece);
      await fill({ range: piece, masters: values, states });
      const first = piece.start - this.#range.start;
      await this.#send(mastersArray, first, values);
      for (const [slot, state] of Object.entries(states)) {
        await this.#send(slot, first / (packing[slot] ?? 1), state);
      }
    }
  }

  async #send(array: string, first: number, values: Float32Array): Promise<void> {
    if (values.every((value) => Object.is(value, 0))) return;
    const bytes = viewOf(values);
    await this.#parts.call({ kind: "fill", array, offset: first * 4, values: bytes });
  }
}

/** Zeros of what a shard keeps of a range. */
function zerosOf(optimizer: ChosenOptimizer, { start, end }: ElementRange): ShardArrays {
  const { slots, packing } = openOptimizer(optimizer);
  const numElements = end - start;
  const sizes = slots.map((slot) => [slot, numElements / (packing[slot] ?? 1)] as const);
  return zeroArrays(numElements, sizes);
}

const viewOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

const inOrder = <T extends { readonly tensor: number }>(tensors: readonly T[]): readonly T[] =>
  [...tensors].sort((one, other) => one.tensor - other.tensor);

/** A range in parts that a message holds; all but the last end at a block of the space. */
function piecesOf({ start, end }: ElementRange): readonly ElementRange[] {
  const pieces: ElementRange[] = [];
  for (let at = start; at < end; ) {
    const next = Math.floor((at + pieceElements) / blockElements) * blockElements;
    pieces.push({ start: at, end: Math.min(end, next) });
    at = next;
  }
  return pieces;
}
