import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange } from "#lib/core/parameter-layout";
import type { KeptPiece, TensorStates } from "#lib/core/shard-arrays";
import type { OpenTarget } from "./file-target.js";
import type { HaveWritten } from "./have-written.js";
import { localFiles, type StateFiles } from "./state-files.js";
import { SafetensorsFile } from "./safetensors-file.js";
import { readTensorStates, writeTensorStates } from "./tensor-states.js";
import { writeTensors } from "./tensor-store.js";

const mastersName = "masters";
const format = "lockstep-optimizer-1";
const fileName = (shard: number, numShards: number): string =>
  `optimizer-${String(shard + 1).padStart(5, "0")}-of-${String(numShards).padStart(5, "0")}.safetensors`;

/** Files that this process writes at a time: on their way to a store, each is in memory in some parts. */
const maxFilesAtOnce = 4;

/**
 * Writes one file a shard into the existing `directory`, several at the same time: its masters, and what the optimizer
 * keeps by name; and one of what it keeps of whole tensors.
 *
 * @param haveWritten how shards of other processes write their files themselves; absent: they do not
 */
export async function writeOptimizerState(
  directory: string,
  shards: readonly KeptPiece[],
  tensorStates: TensorStates = {},
  openTarget?: OpenTarget,
  haveWritten?: HaveWritten,
): Promise<void> {
  await writeTensorStates(directory, tensorStates);
  const last: Promise<void>[] = [];
  const inTurn = async (shard: number, write: () => Promise<void>): Promise<void> => {
    const turn = shard % maxFilesAtOnce;
    const before = last[turn];
    const done = before === undefined ? write() : before.then(write, write);
    last[turn] = done;
    return done;
  };
  const written = await Promise.allSettled(
    shards.map(async (shard, i) => {
      const file = join(directory, fileName(i, shards.length));
      const { files } = shard;
      const isWritten =
        files !== undefined && (await haveWritten?.(file, (place) => files.saveState(place)));
      if (isWritten !== true) await inTurn(i, () => writeShardState(file, shard, openTarget));
    }),
  );
  for (const file of written) if (file.status === "rejected") throw file.reason;
}

/** Writes what one shard keeps. */
export async function writeShardState(
  file: string,
  { range, masters, states }: KeptPiece,
  openTarget?: OpenTarget,
): Promise<void> {
  await writeTensors(
    file,
    [[mastersName, masters] as const, ...Object.entries(states)].map(([name, data]) => ({
      ...{ name, data },
      shape: [data.length],
    })),
    { metadata: { format, start: String(range.start), end: String(range.end) }, openTarget },
  );
}

interface StoredShard {
  readonly file: SafetensorsFile;
  readonly range: ElementRange;
}

/**
 * Reads any range of a stored optimizer state, so that a run may resume with another number of
 * reducer shards than it had.
 */
export class OptimizerStateReader {
  /** Elements of the flat space. */
  readonly numElements: number;
  readonly #directory: string;
  readonly #files: StateFiles;
  /** Names of what the optimizer kept, sorted. */
  readonly #slots: readonly string[];
  readonly #shards: readonly StoredShard[];

  private constructor(
    directory: string,
    files: StateFiles,
    slots: readonly string[],
    shards: readonly StoredShard[],
  ) {
    this.#directory = directory;
    this.#files = files;
    this.#slots = slots;
    this.#shards = shards;
    this.numElements = shards.at(-1)?.range.end ?? 0;
  }

  /** @param files those of the directory, by default this machine's */
  static async open(
    directory: string,
    files: StateFiles = localFiles(directory),
  ): Promise<OptimizerStateReader> {
    const fail = (file: string, problem: string): never => {
      throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file, problem });
    };
    const names = (await files.names()).filter((name) =>
      /^optimizer-\d{5}-of-\d{5}\.safetensors$/.test(name),
    );
    names.sort();
    if (names.length === 0) fail("optimizer-*.safetensors", "is missing");
    const shards: StoredShard[] = [];
    let slots: readonly string[] = [];
    try {
      for (const [i, name] of names.entries()) {
        if (name !== fileName(i, names.length))
          fail(name, `is not part ${i + 1} of ${names.length}`);
        const file = await SafetensorsFile.over(await files.open(name));
        const range = { start: Number(file.metadata["start"]), end: Number(file.metadata["end"]) };
        shards.push({ file, range });
        if (file.metadata["format"] !== format) fail(name, `is not of format ${format}`);
        if (range.start !== (shards[i - 1]?.range.end ?? 0) || !(range.end >= range.start)) {
          fail(name, "does not continue the shard before it");
        }
        if (i === 0) slots = slotsOf(file);
        if (slotsOf(file).length > slots.length) fail(name, "keeps more than the shard before it");
      }
      for (const tensor of [mastersName, ...slots]) {
        const packing = tensor === mastersName ? 1 : packingOf(tensor, shards);
        for (const [i, { file, range }] of shards.entries()) {
          const size = file.tensors.get(tensor)?.numElements ?? Number.NaN;
          if (size * packing === range.end - range.start) continue;
          fail(names[i] as string, `has no ${tensor} of its range`);
        }
      }
    } catch (error) {
      for (const { file } of shards) await file.close();
      throw error;
    }
    return new OptimizerStateReader(directory, files, slots, shards);
  }

  async readMasters(range: ElementRange, into: Float32Array): Promise<void> {
    await this.#readRange(mastersName, range, into);
  }

  /**
   * Fills the arrays that the run's optimizer keeps, by name.
   * @throws E_RESUME_MISMATCH where it is the state of an optimizer that keeps others
   */
  async readStates(
    range: ElementRange,
    states: Readonly<Record<string, Float32Array>>,
  ): Promise<void> {
    this.#requireSlots(Object.keys(states));
    for (const [slot, into] of Object.entries(states)) {
      this.#requirePacking(slot, range, into);
      await this.#readRange(slot, range, into);
    }
  }

  /** As many elements have to share a number as in the run that was saved. */
  #requirePacking(slot: string, { start, end }: ElementRange, into: Float32Array): void {
    const packing = packingOf(slot, this.#shards);
    if (into.length * packing === end - start) return;
    const differences = `its optimizer kept a number of ${slot} for ${packing} elements, the run's keeps ${into.length} for ${end - start}`;
    throw new LockstepError("E_RESUME_MISMATCH", { directory: this.#directory, differences });
  }

  /**
   * Fills the arrays that the run's optimizer keeps of whole tensors, by name.
   * @throws E_RESUME_MISMATCH, E_CHECKPOINT_DAMAGED
   */
  async readTensorStates(states: TensorStates): Promise<void> {
    await readTensorStates(this.#directory, states, this.#files);
  }

  #requireSlots(expected: readonly string[]): void {
    const wanted = [...expected].sort();
    if (wanted.join() === this.#slots.join()) return;
    const inWords = (slots: readonly string[]): string =>
      slots.length === 0 ? "nothing" : slots.join(" and ");
    const differences = `its optimizer kept ${inWords(this.#slots)}, the run's keeps ${inWords(wanted)}`;
    throw new LockstepError("E_RESUME_MISMATCH", { directory: this.#directory, differences });
  }

  /** Fills `into` with the numbers of the elements `range` of the flat space. */
  async #readRange(tensor: string, range: ElementRange, into: Float32Array): Promise<void> {
    const packing = packingOf(tensor, this.#shards);
    for (const { file, range: stored } of this.#shards) {
      const start = Math.max(range.start, stored.start);
      const end = Math.min(range.end, stored.end);
      if (start >= end) continue;
      await file.readFloat32(tensor, into.subarray((start - range.start) / packing), {
        start: (start - stored.start) / packing,
        count: (end - start) / packing,
      });
    }
  }

  async close(): Promise<void> {
    for (const { file } of this.#shards) await file.close();
  }
}

const slotsOf = ({ tensors }: SafetensorsFile): string[] =>
  [...tensors.keys()].filter((name) => name !== mastersName).sort();

/** Elements that share a number of an array, by the first file that has some. */
function packingOf(tensor: string, shards: readonly StoredShard[]): number {
  const first = shards.find(({ range }) => range.end > range.start);
  if (first === undefined) return 1;
  const { file, range } = first;
  return (range.end - range.start) / (file.tensors.get(tensor)?.numElements ?? Number.NaN);
}
