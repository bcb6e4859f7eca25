import type { AdapterDirectory, AdapterFacts } from "#lib/checkpoint/peft/index";
import type { ElementSpan } from "#lib/checkpoint/safetensors-file";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { LoadValues } from "#lib/core/wire-space";

/** A tensor by name, with its shape. */
interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
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
  /** The embedding table that its head is; undefined: the head is a weight of its own. */
  readonly tiedEmbedding: string | undefined;
  /** Fields of config.json that it has beside or instead of the checkpoint's. */
  readonly configChanges: Readonly<Record<string, unknown>>;
  /** SHA-256 of the checkpoint's weights, by content. */
  readonly digest: () => Promise<string>;
  /** A weight's elements, float32, or a span of them. */
  readonly read: (name: string, into?: Float32Array, span?: ElementSpan) => Promise<Float32Array>;
}

/** Reads ranges of a space of the model's own weights, no more of a weight than lies in the range. */
export const weightsIn =
  (layout: ParameterLayout, { read }: Pick<StartingModel, "read">): LoadValues =>
  async (range, into) => {
    for (const { name, offset, size } of layout.tensors) {
      const start = Math.max(range.start, offset);
      const end = Math.min(range.end, offset + size);
      if (start >= end) continue;
      const part = into.subarray(start - range.start, end - range.start);
      await read(name, part, { start: start - offset, count: end - start });
    }
  };

export const numElements = (tensors: readonly { readonly size: number }[]): number =>
  tensors.reduce((sum, { size }) => sum + size, 0);
