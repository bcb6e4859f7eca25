import { once } from "node:events";
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import type { BlockPass } from "./block-passes.js";
import type { MemoryMap } from "./memory-map.js";
import type { ChosenOptimizer } from "./optimizers/index.js";
import type { Measurement } from "./tensor-passes.js";
import type { SumWindow } from "./tensor-sums.js";

/** What the thread gets at its start. */
export interface BlockThreadData {
  readonly layout: ParameterLayout;
  readonly range: ElementRange;
  readonly optimizer: ChosenOptimizer;
  readonly map: MemoryMap;
  readonly memory: WebAssembly.Memory;
  readonly port: MessagePort;
  /** Int32: passes begun, passes done, whether one failed. */
  readonly counters: Int32Array<SharedArrayBuffer>;
  readonly sums: Float64Array<SharedArrayBuffer>;
}

/** A part of a pass for the thread. */
export type BlockThreadTask = {
  readonly from: number;
  readonly to: number;
} & ({ readonly pass: BlockPass } | { readonly measurement: Measurement });

/**
 * A second thread for passes over a range's blocks. Its owner stays synchronous: it begins a part there,
 * does the other part itself, and waits.
 */
export class BlockThread {
  /** float64 sums of squares, one a block; the thread fills those of its part. */
  readonly sums: Float64Array<SharedArrayBuffer>;
  readonly #counters: Int32Array<SharedArrayBuffer>;
  readonly #thread: Worker;
  readonly #port: MessagePort;
  #numBegun = 0;

  private constructor(
    thread: Worker,
    port: MessagePort,
    { counters, sums }: Pick<BlockThreadData, "counters" | "sums">,
  ) {
    this.#thread = thread;
    this.#port = port;
    this.#counters = counters;
    this.sums = sums;
  }

  static async start(
    range: Pick<BlockThreadData, "layout" | "range" | "optimizer" | "map" | "memory">,
    numBlocks: number,
  ): Promise<BlockThread> {
    const { port1, port2 } = new MessageChannel();
    const shared = {
      counters: new Int32Array(new SharedArrayBuffer(3 * 4)),
      sums: new Float64Array(new SharedArrayBuffer(numBlocks * 8)),
    };
    const workerData: BlockThreadData = { ...range, ...shared, port: port2 };
    const thread = new Worker(new URL("./block-thread-main.js", import.meta.url), {
      workerData,
      transferList: [port2],
    });
    await once(thread, "message");
    // It waits for work and holds nobody up.
    thread.unref();
    port1.unref();
    return new BlockThread(thread, port1, shared);
  }

  begin(task: BlockThreadTask): void {
    this.#port.postMessage(task);
    this.#numBegun += 1;
    Atomics.store(this.#counters, 0, this.#numBegun);
    Atomics.notify(this.#counters, 0);
  }

  /** Waits for what was begun. @throws Error if it failed, which only a mistake in this folder can cause */
  finish(): void {
    for (;;) {
      const numDone = Atomics.load(this.#counters, 1);
      if (numDone === this.#numBegun) break;
      Atomics.wait(this.#counters, 1, numDone);
    }
    if (Atomics.load(this.#counters, 2) === 0) return;
    const cause: unknown = receiveMessageOnPort(this.#port)?.message;
    throw new Error(`a pass over blocks failed: ${String(cause)}`);
  }

  /** What the measurement that was begun came to. @throws Error as `finish` */
  finishMeasurement(): readonly SumWindow[] {
    this.finish();
    return receiveMessageOnPort(this.#port)?.message as readonly SumWindow[];
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }
}
