import { isDerivedTensor } from "#lib/core/derived-tensors";
import { LockstepError } from "#lib/core/errors/index";
import type { ModelTensor } from "#lib/checkpoint/model-directory";
import type { ModelWeights } from "#lib/checkpoint/model-weights";
import type { Nf4Form } from "#lib/core/nf4";
import type { AdapterDirectory } from "./adapter-directory.js";
import { asQuantised, quantisableWeights } from "./quantised-base.js";
import { type AdapterFacts, isInputMajor, scaleOf } from "./target-modules.js";

interface LowRankUpdate {
  /** [rank, inputs] */
  readonly a: Float32Array;
  /** [outputs, rank] */
  readonly b: Float32Array;
  readonly rank: number;
  readonly scale: number;
  /** The weight lies as [inputs, outputs] (GPT-2's Conv1D). */
  readonly isTransposed: boolean;
}

/** weight += scale B A, in place; sums over the rank are float64. */
export function addLowRank(weight: Float32Array, update: LowRankUpdate): void {
  const { a, b, rank, scale, isTransposed } = update;
  const [numInputs, numOutputs] = [a.length / rank, b.length / rank];
  if (weight.length !== numInputs * numOutputs) {
    throw new RangeError(`${weight.length} elements are not ${numOutputs} x ${numInputs}`);
  }
  const [outputStep, inputStep] = isTransposed ? [1, numOutputs] : [numInputs, 1];
  const row = new Float64Array(numInputs);
  for (let output = 0; output < numOutputs; output++) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (b[output * rank + r] as number);
      const start = r * numInputs;
      for (let i = 0; i < numInputs; i++) {
        row[i] = (row[i] as number) + factor * (a[start + i] as number);
      }
    }
    for (let i = 0; i < numInputs; i++) {
      const at = output * outputStep + i * inputStep;
      weight[at] = (weight[at] as number) + (row[i] as number);
    }
  }
}

/** How the elements of a weight that maps inputs to outputs lie. */
interface RowsOfWeight {
  readonly numOutputs: number;
  /** The weight lies as [inputs, outputs]. */
  readonly isTransposed: boolean;
}

/** The Euclidean norm of each output's row; sums are float64. */
export function rowNorms(
  weight: Float32Array,
  { numOutputs, isTransposed }: RowsOfWeight,
): Float32Array {
  const numInputs = weight.length / numOutputs;
  const squares = new Float64Array(numOutputs);
  for (let i = 0; i < weight.length; i++) {
    const output = isTransposed ? i % numOutputs : Math.floor(i / numInputs);
    squares[output] = (squares[output] as number) + (weight[i] as number) ** 2;
  }
  return Float32Array.from(squares, Math.sqrt);
}

/** Gives each output's row the norm that `magnitudes` has for it, in place (DoRA). */
export function rescaleRows(
  weight: Float32Array,
  magnitudes: Float32Array,
  isTransposed: boolean,
): void {
  const numOutputs = magnitudes.length;
  const norms = rowNorms(weight, { numOutputs, isTransposed });
  const factors = Float64Array.from(norms, (norm, i) => (magnitudes[i] as number) / norm);
  const numInputs = weight.length / numOutputs;
  for (let i = 0; i < weight.length; i++) {
    const output = isTransposed ? i % numOutputs : Math.floor(i / numInputs);
    weight[i] = (weight[i] as number) * (factors[output] as number);
  }
}

/** A weight of a merged model. */
interface MergedTensor extends ModelTensor {
  /** The weight beside which the adapter's matrices are added, float32. */
  readonly readUnmerged: () => Promise<Float32Array>;
}

/** A base model for its adapter: which of its weights count, and what the adapter puts beside them. */
export interface MergeOptions {
  readonly facts: AdapterFacts;
  /** Weights that a new head has, which come from the adapter. */
  readonly newWeights?: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Weights that begin as another of the base, by name: a head that is no longer tied. */
  readonly copies?: ReadonlyMap<string, string>;
  /** The code of 4 bits that the base's linear weights are taken through, as training had them; absent: none. */
  readonly quantisation?: Nf4Form | undefined;
  /** Whether a weight of the base is one of the model's; all are, by default. */
  readonly isOfModel?: (name: string) => boolean;
}

/**
 * A model's weights with an adapter in them, each made when it is asked for.
 *
 * @throws E_ADAPTER_TENSOR for an adapter of another model, or one without the head's weights
 */
export function mergedTensors(
  base: ModelWeights,
  adapter: AdapterDirectory,
  options: MergeOptions,
): readonly MergedTensor[] {
  const { facts, newWeights = [], copies = new Map(), isOfModel = () => true } = options;
  const { quantisation } = options;
  const ofBase = base
    .names()
    .filter((name) => !isDerivedTensor(name) && isOfModel(name))
    .map((name) => ({ name, shape: base.info(name).shape }));
  const weights = [...ofBase, ...newWeights.filter(({ name }) => !base.has(name))].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  adapter.checkAgainst({ facts, weights });
  const moduleOf = new Map(adapter.modules.map((module) => [`${module.path}.weight`, module]));
  const saved = new Set(adapter.savedWeights);
  const quantised = quantisation === undefined ? new Set() : quantisableWeights({ facts, weights });
  for (const { name } of weights) {
    if (saved.has(name) || base.has(name) || copies.has(name)) continue;
    const problem = "is neither in the adapter nor in the base model";
    throw new LockstepError("E_ADAPTER_TENSOR", {
      directory: adapter.directory,
      tensor: name,
      problem,
    });
  }
  return weights.map(({ name, shape }) => {
    const isTransposed = isInputMajor(facts, name.replace(/\.weight$/, ""));
    const readUnmerged = async (): Promise<Float32Array> => {
      if (saved.has(name)) return adapter.readSaved(name);
      const source = base.has(name) ? name : (copies.get(name) ?? name);
      const stored = await base.readFloat32(source);
      return quantisation !== undefined && quantised.has(name)
        ? asQuantised(quantisation, stored, { name, shape }, isTransposed)
        : stored;
    };
    const read = async (): Promise<Float32Array> => {
      const weight = await readUnmerged();
      const module = moduleOf.get(name);
      if (saved.has(name) || module === undefined) return weight;
      const { path, rank } = module;
      addLowRank(weight, {
        a: await adapter.readPart(path, "A"),
        b: await adapter.readPart(path, "B"),
        ...{ rank, isTransposed, scale: scaleOf(adapter.config, path) },
      });
      if (adapter.config.use_dora) {
        rescaleRows(weight, await adapter.readPart(path, "magnitude"), isTransposed);
      }
      return weight;
    };
    return { name, shape, read, readUnmerged };
  });
}
