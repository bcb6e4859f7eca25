import { bytesPerElement } from "#lib/core/dtype";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  regionAt,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import type { Kernels } from "./kernels.js";
import type { MemoryMap } from "./memory-map.js";

export interface AdamWStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Decoupled; of regions that decay. */
  readonly weightDecay: number;
  /** 1 for the first update. */
  readonly updateNumber: number;
  /** Multiplies the summed gradient: clip coefficient / loss scale. */
  readonly gradientScale: number;
}

export interface SgdStep {
  readonly learningRate: number;
  readonly momentum: number;
  /** Added to the gradient (L2), of regions that decay. */
  readonly weightDecay: number;
  readonly gradientScale: number;
}

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
  | { readonly kind: "adamw"; readonly step: AdamWStep; readonly published: number }
  | { readonly kind: "sgd"; readonly step: SgdStep; readonly published: number }
  | { readonly kind: "publish"; readonly published: number };

/** One block of the flat space: the unit in which every pass goes over the range. */
interface Block {
  /** Element within the range. */
  readonly start: number;
  /** Byte within the range's wire form. */
  readonly wireStart: number;
  readonly wireBytes: number;
  readonly decays: boolean;
  readonly isBfloat16: boolean;
}

/** Passes over the blocks of a range in a wasm memory. No block needs another, so threads may share them. */
export class BlockPasses {
  readonly #map: MemoryMap;
  readonly #kernels: Kernels;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  /** Where this thread puts a block of an arriving gradient; a byte. */
  readonly #staging: number;
  readonly #blocks: readonly Block[];

  constructor(options: {
    readonly layout: ParameterLayout;
    readonly range: ElementRange;
    readonly map: MemoryMap;
    readonly kernels: Kernels;
    readonly buffer: SharedArrayBuffer;
    readonly thread: 0 | 1;
  }) {
    const { layout, range, map, kernels, buffer, thread } = options;
    this.#map = map;
    this.#kernels = kernels;
    this.#bytes = new Uint8Array(buffer);
    this.#staging = map.staging[thread];
    const wireBase = wireOffsetBytes(layout, range.start);
    this.#blocks = Array.from({ length: map.numElements / blockElements }, (_, index) => {
      const start = index * blockElements;
      const { dtype, decays } = regionAt(layout, range.start + start);
      return {
        start,
        wireStart: wireOffsetBytes(layout, range.start + start) - wireBase,
        wireBytes: blockElements * bytesPerElement[dtype],
        decays,
        isBfloat16: dtype === "bfloat16",
      };
    });
  }

  get numBlocks(): number {
    return this.#blocks.length;
  }

  /** @param sums takes the blocks' float64 sums of squares where the pass makes them */
  run(pass: BlockPass, from: number, to: number, sums: Float64Array): void {
    const work = this.#workOf(pass, sums);
    for (let index = from; index < to; index++) work(this.#blocks[index] as Block, index);
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
      case "adamw":
        return this.#adamW(pass.step, pass.published);
      case "sgd":
        return this.#sgd(pass.step, pass.published);
      case "publish":
        return (block) => this.#publish(block, pass.published);
    }
  }

  #add(block: Block, wire: Uint8Array, first: boolean): void {
    const source = wire.subarray(block.wireStart, block.wireStart + block.wireBytes);
    const sum = this.#map.gradientSum + block.start * 4;
    if (first && !block.isBfloat16) {
      this.#bytes.set(source, sum);
      return;
    }
    const staging = this.#staging;
    this.#bytes.set(source, staging);
    if (!block.isBfloat16) this.#kernels.addFloat32(sum, staging, blockElements);
    else if (first) this.#kernels.setBfloat16(sum, staging, blockElements);
    else this.#kernels.addBfloat16(sum, staging, blockElements);
  }

  #sumOfSquares(block: Block): number {
    return this.#kernels.sumOfSquares(this.#map.gradientSum + block.start * 4, blockElements);
  }

  #adamW(step: AdamWStep, published: number): (block: Block) => void {
    const kernels = this.#kernels;
    const biasCorrection1 = 1 - step.beta1 ** step.updateNumber;
    const biasCorrection2 = 1 - step.beta2 ** step.updateNumber;
    kernels.setAdamWFactors(
      step.gradientScale,
      1 - step.beta1,
      step.beta2,
      1 - step.beta2,
      -(step.learningRate / biasCorrection1),
      Math.sqrt(biasCorrection2),
      step.epsilon,
    );
    const { masters, firstMoment, secondMoment, gradientSum } = this.#map;
    return ({ start, wireStart, decays, isBfloat16 }) => {
      kernels.setDecayFactor(decays ? 1 - step.learningRate * step.weightDecay : 1);
      const at = start * 4;
      const update = isBfloat16 ? kernels.adamWToBfloat16 : kernels.adamWToFloat32;
      update(
        masters + at,
        firstMoment + at,
        secondMoment + at,
        gradientSum + at,
        published + wireStart,
        blockElements,
      );
    };
  }

  #sgd(step: SgdStep, published: number): (block: Block) => void {
    const kernels = this.#kernels;
    kernels.setSgdFactors(step.gradientScale, step.momentum, -step.learningRate);
    const { masters, firstMoment, gradientSum } = this.#map;
    return (block) => {
      kernels.setCoupledDecay(block.decays ? step.weightDecay : 0);
      const at = block.start * 4;
      kernels.sgd(masters + at, firstMoment + at, gradientSum + at, blockElements);
      this.#publish(block, published);
    };
  }

  #publish({ start, wireStart, isBfloat16 }: Block, published: number): void {
    const from = this.#map.masters + start * 4;
    const to = published + wireStart;
    if (isBfloat16) this.#kernels.toBfloat16(from, to, blockElements);
    else this.#bytes.copyWithin(to, from, from + blockElements * 4);
  }
}
