import { bytesPerElement } from "#lib/core/dtype";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  wireDtypeAt,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { instantiateKernels, type Kernels } from "./kernels.js";
import { type MemoryMap, memoryMap, wasmPageBytes } from "./memory-map.js";

/** The smallest of the systems that Node runs on. */
const systemPageBytes = 4096;

export interface AdamWStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Decoupled; applied to the matrix region only. */
  readonly weightDecay: number;
  /** 1 for the first update. */
  readonly updateNumber: number;
  /** Multiplies the summed gradient: clip coefficient / loss scale. */
  readonly gradientScale: number;
}

export interface SgdStep {
  readonly learningRate: number;
  readonly momentum: number;
  /** Added to the gradient (L2), of the matrix region only. */
  readonly weightDecay: number;
  readonly gradientScale: number;
}

/** One block of the flat space: the unit in which every pass goes over the range. */
interface Block {
  /** Element within the range. */
  readonly start: number;
  /** Byte within the range's wire form. */
  readonly wireStart: number;
  readonly wireBytes: number;
  readonly isMatrix: boolean;
  readonly isBfloat16: boolean;
}

/**
 * The arithmetic of one reducer shard: a contiguous range of the flat parameter space in one wasm
 * memory, with float32 masters and AdamW moments. All results are the same bits for any division of
 * the space into ranges.
 */
export class ShardArithmetic {
  readonly range: ElementRange;
  /** Bytes of the range in wire form. */
  readonly wireBytes: number;
  /** float32 views of the shared memory, range-local; writing `masters` sets the weights. */
  readonly masters: Float32Array<SharedArrayBuffer>;
  readonly firstMoment: Float32Array<SharedArrayBuffer>;
  readonly secondMoment: Float32Array<SharedArrayBuffer>;
  /** float32 sum of the groups added so far. */
  readonly gradientSum: Float32Array<SharedArrayBuffer>;
  readonly #map: MemoryMap;
  readonly #kernels: Kernels;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #blocks: readonly Block[];
  /** Which of the two published buffers the next version goes to. */
  #nextBuffer: 0 | 1 = 0;
  /** Whether the optimizer already wrote the masters of now to the next buffer. */
  #nextIsWritten = false;

  private constructor(
    layout: ParameterLayout,
    range: ElementRange,
    map: MemoryMap,
    kernels: Kernels,
    buffer: SharedArrayBuffer,
  ) {
    this.range = range;
    this.wireBytes = map.wireBytes;
    this.#map = map;
    this.#kernels = kernels;
    this.#bytes = new Uint8Array(buffer);
    const view = (start: number) => new Float32Array(buffer, start, map.numElements);
    this.masters = view(map.masters);
    this.firstMoment = view(map.firstMoment);
    this.secondMoment = view(map.secondMoment);
    this.gradientSum = view(map.gradientSum);
    const wireBase = wireOffsetBytes(layout, range.start);
    this.#blocks = Array.from({ length: map.numElements / blockElements }, (_, index) => {
      const start = index * blockElements;
      const dtype = wireDtypeAt(layout, range.start + start);
      return {
        start,
        wireStart: wireOffsetBytes(layout, range.start + start) - wireBase,
        wireBytes: blockElements * bytesPerElement[dtype],
        isMatrix: start < map.numMatrixElements,
        isBfloat16: dtype === "bfloat16",
      };
    });
  }

  /**
   * @param range block-aligned, as `shardRanges` gives it
   * @throws E_SHARD_TOO_LARGE
   */
  static async create(layout: ParameterLayout, range: ElementRange): Promise<ShardArithmetic> {
    const map = memoryMap(layout, range);
    const pages = Math.ceil(map.totalBytes / wasmPageBytes);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const buffer = memory.buffer as SharedArrayBuffer;
    // The first touch of a page costs far more than the arithmetic on it: pay now, not in a step. A byte a
    // page: V8 fills shared memory a word at a time, which took as long again.
    const bytes = new Uint8Array(buffer);
    for (let at = 0; at < bytes.length; at += systemPageBytes) bytes[at] = 0;
    return new ShardArithmetic(layout, range, map, await instantiateKernels(memory), buffer);
  }

  /**
   * Adds a group's gradient to the sum; the first one overwrites what was there. The order of calls
   * is the order of the sum.
   *
   * @param wire the range in wire form, `wireBytes` long
   */
  addGroup(wire: Uint8Array, first: boolean): void {
    this.#requireWireBytes(wire);
    for (const block of this.#blocks) this.#addBlock(block, wire, first);
  }

  /**
   * Adds the step's last group as `addGroup` does and takes the sums of squares in the same pass,
   * while each block is still in cache.
   */
  addLastGroup(wire: Uint8Array, first: boolean): Float64Array<ArrayBuffer> {
    this.#requireWireBytes(wire);
    return Float64Array.from(this.#blocks, (block) => {
      this.#addBlock(block, wire, first);
      return this.#blockSumOfSquares(block);
    });
  }

  /**
   * float64 sum of squares of the summed gradient per block of `blockElements`, unscaled, in block
   * order. A non-finite gradient shows as a non-finite sum.
   */
  blockSumsOfSquares(): Float64Array<ArrayBuffer> {
    return Float64Array.from(this.#blocks, (block) => this.#blockSumOfSquares(block));
  }

  /**
   * One AdamW update of the whole range in torch's order of operations (Loshchilov and Hutter,
   * arXiv 1711.05101; torch.optim.AdamW), float32 throughout. The factors are computed in float64
   * and rounded once, as torch does. Also writes the wire form that the next `publish` returns.
   */
  applyAdamW(step: AdamWStep): void {
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
    const published = this.#map.published[this.#nextBuffer];
    for (const { start, wireStart, isMatrix, isBfloat16 } of this.#blocks) {
      kernels.setDecayFactor(isMatrix ? 1 - step.learningRate * step.weightDecay : 1);
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
    }
    this.#nextIsWritten = true;
  }

  /** One update of SGD with momentum in torch.optim.SGD's order; the velocity is `firstMoment`. */
  applySgd(step: SgdStep): void {
    const kernels = this.#kernels;
    kernels.setSgdFactors(step.gradientScale, step.momentum, -step.learningRate);
    const { masters, firstMoment, gradientSum } = this.#map;
    for (const block of this.#blocks) {
      kernels.setCoupledDecay(block.isMatrix ? step.weightDecay : 0);
      const at = block.start * 4;
      kernels.sgd(masters + at, firstMoment + at, gradientSum + at, blockElements);
      this.#publishBlock(block);
    }
    this.#nextIsWritten = true;
  }

  /**
   * The masters of now in wire form (bfloat16 rounded to nearest even; a NaN stays one). The bytes
   * returned stay as they are until the second update or publication after this one.
   */
  publish(): Uint8Array<SharedArrayBuffer> {
    if (!this.#nextIsWritten) for (const block of this.#blocks) this.#publishBlock(block);
    const start = this.#map.published[this.#nextBuffer];
    this.#nextBuffer = this.#nextBuffer === 0 ? 1 : 0;
    this.#nextIsWritten = false;
    return this.#bytes.subarray(start, start + this.wireBytes);
  }

  #addBlock(block: Block, wire: Uint8Array, first: boolean): void {
    const source = wire.subarray(block.wireStart, block.wireStart + block.wireBytes);
    const sum = this.#map.gradientSum + block.start * 4;
    if (first && !block.isBfloat16) {
      this.#bytes.set(source, sum);
      return;
    }
    const { staging } = this.#map;
    this.#bytes.set(source, staging);
    if (!block.isBfloat16) this.#kernels.addFloat32(sum, staging, blockElements);
    else if (first) this.#kernels.setBfloat16(sum, staging, blockElements);
    else this.#kernels.addBfloat16(sum, staging, blockElements);
  }

  #blockSumOfSquares(block: Block): number {
    return this.#kernels.sumOfSquares(this.#map.gradientSum + block.start * 4, blockElements);
  }

  #publishBlock({ start, wireStart, isBfloat16 }: Block): void {
    const from = this.#map.masters + start * 4;
    const to = this.#map.published[this.#nextBuffer] + wireStart;
    if (isBfloat16) this.#kernels.toBfloat16(from, to, blockElements);
    else this.#bytes.copyWithin(to, from, from + blockElements * 4);
  }

  #requireWireBytes(wire: Uint8Array): void {
    if (wire.length !== this.wireBytes) {
      throw new RangeError(`A group has ${this.wireBytes} wire bytes here, not ${wire.length}.`);
    }
  }
}
