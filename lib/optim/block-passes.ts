import { wireBytesPerElement } from "#lib/core/dtype";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  type Region,
  regionAt,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { emaSlot } from "./ema.js";
import { anchorSlot, fisherSlot } from "./ewc.js";
import type { Kernels } from "./kernels.js";
import type { MemoryMap } from "./memory-map.js";
import { type ChosenOptimizer, openOptimizer } from "./optimizers/index.js";
import { type Update, updateOfRegion } from "./region-update.js";
import { type Measurement, TensorPasses } from "./tensor-passes.js";
import type { SumWindow } from "./tensor-sums.js";

/** What is done to every block of a range; `published` is the byte at which a wire form begins. */
export type BlockPass =
  | {
      readonly kind: "add";
      /** The whole range in wire form. */
      readonly wire: Uint8Array;
      readonly first: boolean;
      readonly withSquares: boolean;
    }
  | { readonly kind: "squares" }
  | { readonly kind: "update"; readonly update: Update; readonly published: number }
  | { readonly kind: "average"; readonly weight: number }
  /** Adds the penalty of EWC to the gradient; sums are those of its distances. */
  | { readonly kind: "penalty"; readonly factor: number }
  /** Adds the gradient sum to F, or sets F to it. */
  | { readonly kind: "keepSquares"; readonly first: boolean }
  /** Sums of F. */
  | { readonly kind: "fisherSums" }
  /** Scales F and copies the masters to the anchor. */
  | { readonly kind: "finishFisher"; readonly scale: number }
  | { readonly kind: "publish"; readonly published: number };

/** One block of the flat space: the unit in which every pass goes over the range. */
interface Block {
  /** Element within the range. */
  readonly start: number;
  /** Byte within the range's wire form. */
  readonly wireStart: number;
  readonly wireBytes: number;
  readonly region: Region;
}

/** Passes over the blocks of a range in a wasm memory. No block needs another, so threads may share them. */
export class BlockPasses {
  readonly #map: MemoryMap;
  readonly #kernels: Kernels;
  readonly #optimizer: ReturnType<typeof openOptimizer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  /** Where this thread puts a block of an arriving gradient; a byte. */
  readonly #staging: number;
  readonly #blocks: readonly Block[];
  /** Where the optimizer goes by tensors. */
  readonly #tensors: TensorPasses | undefined;

  constructor(options: {
    readonly layout: ParameterLayout;
    readonly range: ElementRange;
    readonly optimizer: ChosenOptimizer;
    readonly map: MemoryMap;
    readonly kernels: Kernels;
    readonly buffer: SharedArrayBuffer;
    readonly thread: 0 | 1;
  }) {
    const { layout, range, map, kernels, buffer, thread } = options;
    this.#map = map;
    this.#kernels = kernels;
    this.#optimizer = openOptimizer(options.optimizer);
    this.#bytes = new Uint8Array(buffer);
    this.#staging = map.staging[thread];
    const wireBase = wireOffsetBytes(layout, range.start);
    this.#blocks = Array.from({ length: map.numElements / blockElements }, (_, index) => {
      const start = index * blockElements;
      const region = regionAt(layout, range.start + start);
      return {
        start,
        wireStart: wireOffsetBytes(layout, range.start + start) - wireBase,
        wireBytes: blockElements * wireBytesPerElement[region.dtype],
        region,
      };
    });
    const { tensorWise } = this.#optimizer;
    this.#tensors = tensorWise && new TensorPasses(options, this.#optimizer, tensorWise);
  }

  get numBlocks(): number {
    return this.#blocks.length;
  }

  /** @param sums takes the blocks' float64 sums where the pass makes some: of squares, of distances, of F */
  run(pass: BlockPass, from: number, to: number, sums: Float64Array): void {
    const work = this.#workOf(pass, sums);
    for (let index = from; index < to; index++) work(this.#blocks[index] as Block, index);
  }

  /** Adds up what the optimizer needs of whole tensors. */
  measure(measurement: Measurement, from: number, to: number): readonly SumWindow[] {
    if (this.#tensors === undefined) throw new Error("The optimizer measures no tensors");
    return this.#tensors.measure(measurement, from, to);
  }

  #workOf(pass: BlockPass, sums: Float64Array): (block: Block, index: number) => void {
    switch (pass.kind) {
      case "add":
        return (block, index) => {
          this.#add(block, pass.wire, pass.first);
          if (pass.withSquares) sums[index] = this.#sumOfSquares(block);
        };
      case "squares":
        return (block, index) => {
          sums[index] = this.#sumOfSquares(block);
        };
      case "update":
        return this.#update(pass.update, pass.published);
      case "average":
        return (block) => this.#average(block, pass.weight);
      case "publish":
        return (block) => this.#publish(block, pass.published);
      case "penalty":
        return ({ start }, index) => {
          const [fisher, anchor] = this.#ewc(start);
          const { masters, gradientSum } = this.#map;
          const [sum, weights] = [gradientSum + start * 4, masters + start * 4];
          const { addPenalty } = this.#kernels;
          sums[index] = addPenalty(sum, weights, fisher, anchor, blockElements, pass.factor);
        };
      case "keepSquares":
        return ({ start }) => {
          const [fisher] = this.#ewc(start);
          const sum = this.#map.gradientSum + start * 4;
          if (pass.first) this.#bytes.copyWithin(fisher, sum, sum + blockElements * 4);
          else this.#kernels.addFloat32(fisher, sum, blockElements);
        };
      case "fisherSums":
        return ({ start }, index) => {
          sums[index] = this.#kernels.sumOf(this.#ewc(start)[0], blockElements);
        };
      case "finishFisher":
        return ({ start }) => {
          const [fisher, anchor] = this.#ewc(start);
          const weights = this.#map.masters + start * 4;
          this.#kernels.scaleBy(fisher, blockElements, pass.scale);
          this.#bytes.copyWithin(anchor, weights, weights + blockElements * 4);
        };
    }
  }

  #add(block: Block, wire: Uint8Array, first: boolean): void {
    const source = wire.subarray(block.wireStart, block.wireStart + block.wireBytes);
    const sum = this.#map.gradientSum + block.start * 4;
    const { dtype } = block.region;
    if (first && dtype === "float32") {
      this.#bytes.set(source, sum);
      return;
    }
    const staging = this.#staging;
    this.#bytes.set(source, staging);
    const { addBfloat16, addFloat16, addFloat32, setBfloat16, setFloat16 } = this.#kernels;
    if (dtype === "float32") addFloat32(sum, staging, blockElements);
    else if (dtype === "bfloat16") (first ? setBfloat16 : addBfloat16)(sum, staging, blockElements);
    else (first ? setFloat16 : addFloat16)(sum, staging, blockElements);
  }

  #sumOfSquares(block: Block): number {
    return this.#kernels.sumOfSquares(this.#map.gradientSum + block.start * 4, blockElements);
  }

  /** Blocks come in order, so that a region's update is prepared once. */
  #update(update: Update, published: number): (block: Block, index: number) => void {
    let prepared: Region | undefined;
    let updateBlock: (block: Block, index: number) => void = () => {};
    return (block, index) => {
      if (block.region !== prepared) {
        prepared = block.region;
        updateBlock = this.#updateOf(prepared, update, published);
      }
      updateBlock(block, index);
    };
  }

  #updateOf(
    region: Region,
    update: Update,
    published: number,
  ): (block: Block, index: number) => void {
    const { masters, gradientSum } = this.#map;
    const slots = Object.entries(this.#map.states);
    const ofRegion = updateOfRegion(update, region);
    const run =
      ofRegion && this.#optimizer.update?.(this.#kernels, this.#optimizer.settings, ofRegion);
    if (run === undefined) {
      const updateTensors = this.#tensors?.update(region, update);
      return (block, index) => {
        updateTensors?.(index);
        this.#publish(block, published);
      };
    }
    const states: Record<string, number> = {};
    return ({ start, wireStart }) => {
      const at = start * 4;
      const wire = published + wireStart;
      for (const [slot, first] of slots) states[slot] = first + at;
      // Optimizers write two of the three forms: float16 is made of what they write, still in the cache.
      const isFloat16 = region.dtype === "float16";
      run({
        masters: masters + at,
        gradient: gradientSum + at,
        states,
        wire: isFloat16 ? this.#staging : wire,
        isBfloat16: region.dtype === "bfloat16",
        numElements: blockElements,
      });
      if (isFloat16) this.#kernels.toFloat16(masters + at, wire, blockElements);
    };
  }

  /** @throws RangeError where no average is kept */
  #average({ start }: Block, weight: number): void {
    const { masters, states } = this.#map;
    const average = states[emaSlot];
    if (average === undefined) throw new RangeError("no average of the masters is kept");
    this.#kernels.updateAverage(masters + start * 4, average + start * 4, blockElements, weight);
  }

  /** Where a block of F and of the anchor lies. @throws RangeError where there is no penalty */
  #ewc(start: number): readonly [fisher: number, anchor: number] {
    const { [fisherSlot]: fisher, [anchorSlot]: anchor } = this.#map.states;
    if (fisher === undefined || anchor === undefined) {
      throw new RangeError("no Fisher information is kept");
    }
    return [fisher + start * 4, anchor + start * 4];
  }

  #publish({ start, wireStart, region: { dtype } }: Block, published: number): void {
    const from = this.#map.masters + start * 4;
    const to = published + wireStart;
    if (dtype === "bfloat16") this.#kernels.toBfloat16(from, to, blockElements);
    else if (dtype === "float16") this.#kernels.toFloat16(from, to, blockElements);
    else this.#bytes.copyWithin(to, from, from + blockElements * 4);
  }
}
