import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  type Region,
  regionAt,
} from "#lib/core/parameter-layout";
import type { Kernels } from "./kernels.js";
import type { MemoryMap } from "./memory-map.js";
import type { OpenOptimizer } from "./optimizers/index.js";
import type { Scratch, TensorPart } from "./optimizers/tensor-wise.js";
import { type Update, updateOfRegion } from "./region-update.js";
import { type SumWindow, TensorSums } from "./tensor-sums.js";

/** A round of an optimizer's statistics, before the update that they are for. */
export interface Measurement {
  /** Index of the optimizer's pass. */
  readonly pass: number;
  /** With what the pass before came to. */
  readonly update: Update;
}

/** The elements of a tensor in a block of the range. */
interface PlacedPart extends Pick<TensorPart<string>, "shape" | "start" | "numElements"> {
  readonly tensor: number;
  /** Element of the tensor's beginning within the range; negative where it goes on from before. */
  readonly tensorStart: number;
}

type TensorWise = NonNullable<OpenOptimizer["tensorWise"]>;

const nothing = new Float32Array();

/** Passes of an optimizer that goes by tensors, over the blocks of a range in a wasm memory. */
export class TensorPasses {
  readonly #map: MemoryMap;
  readonly #kernels: Kernels;
  readonly #settings: OpenOptimizer["settings"];
  readonly #tensorWise: TensorWise;
  readonly #scratch: Scratch;
  readonly #slots: readonly (readonly [slot: string, start: number, elementsOfOne: number])[];
  readonly #blocks: readonly { readonly region: Region; readonly parts: readonly PlacedPart[] }[];

  constructor(
    options: {
      readonly layout: ParameterLayout;
      readonly range: ElementRange;
      readonly map: MemoryMap;
      readonly kernels: Kernels;
      readonly buffer: SharedArrayBuffer;
      readonly thread: 0 | 1;
    },
    { settings, packing, scratchBytes }: OpenOptimizer,
    tensorWise: TensorWise,
  ) {
    const { layout, range, map, kernels, buffer, thread } = options;
    this.#map = map;
    this.#kernels = kernels;
    this.#settings = settings;
    this.#tensorWise = tensorWise;
    const start = map.scratch[thread];
    this.#scratch = { start, bytes: new Uint8Array(buffer, start, scratchBytes) };
    this.#slots = Object.entries(map.states).map(([slot, first]) => [
      slot,
      first,
      packing[slot] ?? 1,
    ]);
    const parts = partsOf(layout, range);
    this.#blocks = parts.map((each, block) => ({
      region: regionAt(layout, range.start + block * blockElements),
      parts: each,
    }));
  }

  /** Adds up blocks `from` to before `to`. */
  measure({ pass, update }: Measurement, from: number, to: number): readonly SumWindow[] {
    const statistics = this.#tensorWise.passes[pass];
    if (statistics === undefined) throw new RangeError(`The optimizer has no pass ${pass}`);
    const sums = new TensorSums();
    let prepared: Region | undefined;
    let measure: ReturnType<typeof statistics.measure> | undefined;
    for (let block = from; block < to; block++) {
      const { region, parts } = this.#blockAt(block);
      if (region !== prepared) {
        prepared = region;
        const ofRegion = updateOfRegion(update, region);
        measure = ofRegion && statistics.measure(this.#kernels, this.#settings, ofRegion);
      }
      if (measure === undefined) continue;
      for (const part of parts) {
        const { tensor } = part;
        const begins = part.tensorStart >= from * blockElements;
        const numSums = begins ? statistics.numSums(part.shape) : undefined;
        const add = (at: number, of: ArrayLike<number>): void => sums.add(tensor, numSums, at, of);
        measure(this.#addressed(part), update.given?.[tensor] ?? nothing, add, this.#scratch);
      }
    }
    return sums.windows();
  }

  /** What updates the tensors of a block; undefined before the region's first update. */
  update(region: Region, update: Update): ((block: number) => void) | undefined {
    const ofRegion = updateOfRegion(update, region);
    if (ofRegion === undefined) return undefined;
    const run = this.#tensorWise.update(this.#kernels, this.#settings, ofRegion, this.#scratch);
    return (block) => {
      for (const part of this.#blockAt(block).parts) {
        run(this.#addressed(part), update.given?.[part.tensor] ?? nothing);
      }
    };
  }

  #addressed({ shape, start, numElements, tensorStart }: PlacedPart): TensorPart<string> {
    const element = tensorStart + start;
    const position = element % blockElements;
    const { masters, gradientSum } = this.#map;
    return {
      ...{ shape, start, numElements, position },
      masters: masters + element * 4,
      gradient: gradientSum + element * 4,
      states: Object.fromEntries(
        this.#slots.map(([slot, first, elementsOfOne]) => [
          slot,
          first + (elementsOfOne === 1 ? element : (element - position) / elementsOfOne) * 4,
        ]),
      ),
    };
  }

  #blockAt(index: number) {
    const block = this.#blocks[index];
    if (block === undefined) throw new RangeError(`There is no block ${index}`);
    return block;
  }
}

/** The parts of tensors in each block of a range, in order. */
function partsOf({ tensors }: ParameterLayout, range: ElementRange): PlacedPart[][] {
  const blocks: PlacedPart[][] = Array.from(
    { length: (range.end - range.start) / blockElements },
    () => [],
  );
  for (const [tensor, { shape, offset, size }] of tensors.entries()) {
    const tensorStart = offset - range.start;
    const end = Math.min(tensorStart + size, range.end - range.start);
    let at = Math.max(tensorStart, 0);
    while (at < end) {
      const block = Math.floor(at / blockElements);
      const partEnd = Math.min(end, (block + 1) * blockElements);
      const start = at - tensorStart;
      blocks[block]?.push({ tensor, tensorStart, shape, start, numElements: partEnd - at });
      at = partEnd;
    }
  }
  return blocks;
}
