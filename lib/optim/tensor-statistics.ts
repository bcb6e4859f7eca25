import { type ParameterLayout, type Region, regionAt } from "#lib/core/parameter-layout";
import type { TensorStates } from "#lib/core/shard-arrays";
import { type ChosenOptimizer, openOptimizer } from "./optimizers/index.js";
import type { WholeTensor } from "./optimizers/tensor-wise.js";
import { type Update, updateOfRegion } from "./region-update.js";
import type { Measurement } from "./tensor-passes.js";
import { addInto, type SumWindow } from "./tensor-sums.js";

interface MeasuredTensor extends WholeTensor {
  readonly region: Region;
}

/**
 * What an optimizer knows of whole tensors, which no shard has alone: it adds up the shards' sums, keeps what
 * is kept from step to step, and tells the shards what comes of it.
 */
export class TensorStatistics {
  /** Of all tensors; writing sets them, for a run that goes on. */
  readonly states: TensorStates;
  readonly #settings: ReturnType<typeof openOptimizer>["settings"];
  readonly #passes: NonNullable<ReturnType<typeof openOptimizer>["tensorWise"]>["passes"];
  readonly #tensors: readonly MeasuredTensor[];
  /** What each pass came to, by tensor: kept from step to step, since fresh memory costs more. */
  readonly #given: readonly (readonly Float32Array[])[];

  constructor(layout: ParameterLayout, optimizer: ChosenOptimizer) {
    const { tensorWise, settings } = openOptimizer(optimizer);
    this.#settings = settings;
    this.#passes = tensorWise?.passes ?? [];
    const states: Record<string, Float32Array> = {};
    const tensors = tensorWise === undefined ? [] : layout.tensors;
    this.#tensors = tensors.map(({ name, shape, offset }) => {
      const own = Object.entries(tensorWise?.states(shape) ?? {}).map(
        ([state, size]) => [state, new Float32Array(size)] as const,
      );
      for (const [state, values] of own) states[`${name}.${state}`] = values;
      return { shape, states: Object.fromEntries(own), region: regionAt(layout, offset) };
    });
    this.states = states;
    this.#given = this.#passes.map(({ numGiven }) =>
      sharedArrays(this.#tensors.map(({ shape }) => numGiven(shape))),
    );
  }

  /**
   * All rounds before an update.
   *
   * @param measure has all shards add up their parts: sums in the order of the shards
   * @returns the update with what it is given by tensor
   */
  async run(
    update: Update,
    measure: (measurement: Measurement) => Promise<readonly SumWindow[]>,
  ): Promise<Update> {
    let withGiven = update;
    for (const [pass, { numSums, conclude }] of this.#passes.entries()) {
      const windows = await measure({ pass, update: withGiven });
      const sums = this.#tensors.map(({ shape }) => new Float64Array(numSums(shape)));
      for (const { tensor, at, sums: added } of windows) {
        addInto(sums[tensor] as Float64Array, at, added);
      }
      const given = this.#given[pass] as readonly Float32Array[];
      for (const [index, tensor] of this.#tensors.entries()) {
        const ofRegion = updateOfRegion(update, tensor.region);
        if (ofRegion === undefined) continue;
        const into = given[index] as Float32Array;
        conclude(sums[index] as Float64Array, tensor, into, this.#settings, ofRegion);
      }
      withGiven = { ...update, given };
    }
    return withGiven;
  }
}

/** Zeros on one piece of shared memory, which threads get without a copy. */
function sharedArrays(sizes: readonly number[]): readonly Float32Array[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const buffer = new SharedArrayBuffer(total * 4);
  let at = 0;
  return sizes.map((size) => {
    const array = new Float32Array(buffer, at, size);
    at += size * 4;
    return array;
  });
}
