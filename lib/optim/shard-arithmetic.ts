import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import type { ShardPiece } from "#lib/core/shard-arrays";
import { type BlockPass, BlockPasses } from "./block-passes.js";
import { BlockThread } from "./block-thread.js";
import { emaWeight } from "./ema.js";
import { instantiateKernels } from "./kernels.js";
import { type MemoryMap, memoryMap, wasmPageBytes } from "./memory-map.js";
import { type ChosenOptimizer, openOptimizer } from "./optimizers/index.js";
import type { Update } from "./region-update.js";
import type { Measurement } from "./tensor-passes.js";
import type { SumWindow } from "./tensor-sums.js";

/** The smallest of the systems that Node runs on. */
const systemPageBytes = 4096;

/**
 * The arithmetic of one reducer shard: a contiguous range of the flat parameter space in one wasm
 * memory, with float32 masters and what the optimizer keeps. All results are the same bits for any division of
 * the space into ranges, and for one thread or two.
 */
export class ShardArithmetic implements ShardPiece {
  readonly range: ElementRange;
  /** Bytes of the range in wire form. */
  readonly wireBytes: number;
  /** float32 views of the shared memory, range-local; writing `masters` sets the weights. */
  readonly masters: Float32Array<SharedArrayBuffer>;
  readonly states: Readonly<Record<string, Float32Array<SharedArrayBuffer>>>;
  /** float32 sum of the groups added so far. */
  readonly gradientSum: Float32Array<SharedArrayBuffer>;
  readonly #emaDecay: number | undefined;
  readonly #map: MemoryMap;
  readonly #passes: BlockPasses;
  #thread: BlockThread | undefined;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  /** Which of the two published buffers the next version goes to. */
  #nextBuffer: 0 | 1 = 0;
  /** Whether the optimizer already wrote the masters of now to the next buffer. */
  #nextIsWritten = false;

  private constructor(
    range: ElementRange,
    map: MemoryMap,
    packing: Readonly<Record<string, number>>,
    buffer: SharedArrayBuffer,
    passes: BlockPasses,
    thread: BlockThread | undefined,
    emaDecay: number | undefined,
  ) {
    this.range = range;
    this.#emaDecay = emaDecay;
    this.wireBytes = map.wireBytes;
    this.#map = map;
    this.#passes = passes;
    this.#thread = thread;
    this.#bytes = new Uint8Array(buffer);
    const view = (start: number, elementsOfOne = 1) =>
      new Float32Array(buffer, start, map.numElements / elementsOfOne);
    this.masters = view(map.masters);
    this.states = Object.fromEntries(
      Object.entries(map.states).map(([slot, start]) => [slot, view(start, packing[slot])]),
    );
    this.gradientSum = view(map.gradientSum);
  }

  /**
   * @param range block-aligned, as `shardRanges` gives it
   * @param options.withThread does half of every pass in a second thread; `close` ends it
   * @throws E_SHARD_TOO_LARGE
   */
  static async create(
    layout: ParameterLayout,
    range: ElementRange,
    optimizer: ChosenOptimizer,
    options: { readonly withThread?: boolean } = {},
  ): Promise<ShardArithmetic> {
    const opened = openOptimizer(optimizer);
    const map = memoryMap(layout, range, opened);
    const pages = Math.ceil(map.totalBytes / wasmPageBytes);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const buffer = memory.buffer as SharedArrayBuffer;
    // The first touch of a page costs far more than the arithmetic on it: pay now, not in a step. A byte a
    // page: V8 fills shared memory a word at a time, which took as long again.
    const bytes = new Uint8Array(buffer);
    for (let at = 0; at < bytes.length; at += systemPageBytes) bytes[at] = 0;
    const kernels = await instantiateKernels(memory);
    const passes = new BlockPasses({
      ...{ layout, range, optimizer, map, kernels, buffer },
      thread: 0,
    });
    const thread =
      options.withThread === true
        ? await BlockThread.start({ layout, range, optimizer, map, memory }, passes.numBlocks)
        : undefined;
    return new ShardArithmetic(
      range,
      map,
      opened.packing,
      buffer,
      passes,
      thread,
      optimizer.emaDecay,
    );
  }

  /** Masters and what the optimizer keeps, one after the other. */
  get keptBytes(): Uint8Array<SharedArrayBuffer> {
    const { masters, gradientSum } = this.#map;
    return this.#bytes.subarray(masters, gradientSum);
  }

  /** The sum as bytes. */
  get sumBytes(): Uint8Array<SharedArrayBuffer> {
    const { gradientSum, numElements } = this.#map;
    return this.#bytes.subarray(gradientSum, gradientSum + numElements * 4);
  }

  /** Ends the second thread, if there is one; passes after it run in the caller's. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.close();
  }

  /**
   * Adds a group's gradient to the sum; the first one overwrites what was there. The order of calls
   * is the order of the sum.
   *
   * @param wire the range in wire form, `wireBytes` long
   */
  addGroup(wire: Uint8Array, first: boolean): void {
    this.#requireWireBytes(wire);
    this.#run({ kind: "add", wire, first, withSquares: false });
  }

  /**
   * Adds the step's last group as `addGroup` does and takes the sums of squares in the same pass,
   * while each block is still in cache.
   */
  addLastGroup(wire: Uint8Array, first: boolean): Float64Array<ArrayBuffer> {
    this.#requireWireBytes(wire);
    return this.#run({ kind: "add", wire, first, withSquares: true });
  }

  /**
   * float64 sum of squares of the summed gradient per block of `blockElements`, unscaled, in block
   * order. A non-finite gradient shows as a non-finite sum.
   */
  blockSumsOfSquares(): Float64Array<ArrayBuffer> {
    return this.#run({ kind: "squares" });
  }

  /**
   * Adds the gradient of EWC's penalty, `factor * F * (masters - anchor)`, to the gradient sum; to be called once.
   * @returns float64 sums of `F * (masters - anchor)^2` per block, in block order
   */
  addPenalty(factor: number): Float64Array<ArrayBuffer> {
    return this.#run({ kind: "penalty", factor });
  }

  /** Adds the gradient sum, which is of squared gradients, to F. @param first F is it alone */
  keepSquares(first: boolean): void {
    this.#run({ kind: "keepSquares", first });
  }

  /** float64 sums of F per block, in block order. */
  fisherSums(): Float64Array<ArrayBuffer> {
    return this.#run({ kind: "fisherSums" });
  }

  /** Multiplies F, and makes the masters of now the anchor. */
  finishFisher(scale: number): void {
    this.#run({ kind: "finishFisher", scale });
  }

  /**
   * A round of the statistics that the optimizer needs of whole tensors, which may change gradient and states.
   * @returns sums of the range's parts of tensors, in order
   */
  measure(measurement: Measurement): readonly SumWindow[] {
    const { numBlocks } = this.#passes;
    if (this.#thread === undefined) return this.#passes.measure(measurement, 0, numBlocks);
    const middle = numBlocks >>> 1;
    this.#thread.begin({ measurement, from: middle, to: numBlocks });
    const first = this.#passes.measure(measurement, 0, middle);
    return [...first, ...this.#thread.finishMeasurement()];
  }

  /**
   * One update of the whole range, except regions whose first update is a later one, and of the masters' average
   * where one is kept. Also writes the wire form that the next `publish` returns.
   */
  apply(update: Update): void {
    this.#run({ kind: "update", update, published: this.#nextPublished });
    this.#nextIsWritten = true;
    if (this.#emaDecay === undefined) return;
    this.#run({ kind: "average", weight: emaWeight(this.#emaDecay, update.updateNumber) });
  }

  /**
   * The masters of now in wire form (bfloat16 rounded to nearest even; a NaN stays one). The bytes
   * returned stay as they are until the second update or publication after this one.
   */
  publish(): Uint8Array<SharedArrayBuffer> {
    const start = this.#nextPublished;
    if (!this.#nextIsWritten) this.#run({ kind: "publish", published: start });
    this.#nextBuffer = this.#nextBuffer === 0 ? 1 : 0;
    this.#nextIsWritten = false;
    return this.#bytes.subarray(start, start + this.wireBytes);
  }

  get #nextPublished(): number {
    return this.#map.published[this.#nextBuffer];
  }

  /** @returns the sums of squares, where the pass makes them */
  #run(pass: BlockPass): Float64Array<ArrayBuffer> {
    const { numBlocks } = this.#passes;
    const sums = new Float64Array(numBlocks);
    // What does not lie on shared memory would be copied for the other thread.
    const isShared = pass.kind !== "add" || pass.wire.buffer instanceof SharedArrayBuffer;
    if (this.#thread === undefined || !isShared) {
      this.#passes.run(pass, 0, numBlocks, sums);
      return sums;
    }
    const middle = numBlocks >>> 1;
    this.#thread.begin({ pass, from: middle, to: numBlocks });
    this.#passes.run(pass, 0, middle, sums);
    this.#thread.finish();
    sums.set(this.#thread.sums.subarray(middle), middle);
    return sums;
  }

  #requireWireBytes(wire: Uint8Array): void {
    if (wire.length !== this.wireBytes) {
      throw new RangeError(`A group has ${this.wireBytes} wire bytes here, not ${wire.length}.`);
    }
  }
}
