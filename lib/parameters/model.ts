import { type AdapterDirectory, type AdapterFacts, transposed } from "#lib/checkpoint/peft/index";
import type { ElementSpan } from "#lib/checkpoint/safetensors-file";
import type { ElementRange, ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import type { LoadValues } from "#lib/core/wire-space";

/** A tensor by name, with its shape. */
interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** The model of a task: the backbone of the run's model with a head of its own. */
export interface TaskModel {
  readonly task: string;
  /** Before the names of its head's tensors; "": the run's model itself is its own. */
  readonly prefix: string;
  /** Fields of config.json that it has beside or instead of the run's model's. */
  readonly configChanges: Readonly<Record<string, unknown>>;
  /** Whether a weight of the run's model is of the backbone. */
  readonly isOfBase: (name: string) => boolean;
}

/** The model that a run starts from: a checkpoint's, with what its head lacked. */
export interface StartingModel {
  /** By which others find it: an id of the hub, or a path. */
  readonly name: string;
  /** Branch, tag or commit; null: the hub's main one. */
  readonly revision: string | null;
  /** Where its files are. */
  readonly directory: string;
  /** What adapters ask of its type. */
  readonly facts: AdapterFacts;
  /** The adapter that is trained further. */
  readonly adapter?: AdapterDirectory;
  /** Its weights by sorted name, without a head that is tied. */
  readonly weights: readonly NamedTensor[];
  /** Names of weights that the checkpoint does not have: nobody else has them. */
  readonly newWeights: readonly string[];
  readonly isClassifier: boolean;
  /** Of a run with several tasks: those with labels, each with a model that is saved by itself. */
  readonly taskModels?: readonly TaskModel[];
  /** The embedding table that its head is; undefined: the head is a weight of its own. */
  readonly tiedEmbedding: string | undefined;
  /** Fields of config.json that it has beside or instead of the checkpoint's. */
  readonly configChanges: Readonly<Record<string, unknown>>;
  /** Token ids of a text, with those that its tokenizer adds; absent: it has no tokenizer. */
  readonly encode?: (text: string) => Promise<ArrayLike<number>>;
  /** SHA-256 of the checkpoint's weights, by content. */
  readonly digest: () => Promise<string>;
  /** What the files in `directory` call a weight; undefined where they do not have it. @default they have none */
  readonly storedAs?: (name: string) => string | undefined;
  /** A weight's elements, float32, or a span of them. */
  readonly read: (name: string, into?: Float32Array, span?: ElementSpan) => Promise<Float32Array>;
}

/** Reads ranges of a space of the model's own weights, no more of a weight than lies in the range. */
export const weightsIn = (
  layout: ParameterLayout,
  { read, storedAs }: Pick<StartingModel, "read" | "storedAs">,
): LoadValues => {
  const readTurned = transposedReader(read);
  const load = async (range: ElementRange, into: Float32Array): Promise<void> => {
    for (const slot of layout.tensors) {
      const { name, offset, size } = slot;
      const start = Math.max(range.start, offset);
      const end = Math.min(range.end, offset + size);
      if (start >= end) continue;
      const part = into.subarray(start - range.start, end - range.start);
      const span = { start: start - offset, count: end - start };
      if (slot.isTransposed === true) {
        part.set((await readTurned(slot)).subarray(span.start, span.start + span.count));
      } else await read(name, part, span);
    }
  };
  return Object.assign(load, storedAs === undefined ? {} : { storedAs });
};

/** Reads whole matrices, transposed. The last one is kept: ranges of it are asked for one after the other. */
function transposedReader(
  read: StartingModel["read"],
): (slot: TensorSlot) => Promise<Float32Array> {
  let last: { readonly name: string; readonly values: Float32Array } | undefined;
  return async ({ name, shape }) => {
    if (last?.name === name) return last.values;
    const values = transposed(await read(name), shape);
    last = { name, values };
    return values;
  };
}

export const numElements = (tensors: readonly { readonly size: number }[]): number =>
  tensors.reduce((sum, { size }) => sum + size, 0);
