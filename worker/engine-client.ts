import { SHARE_ENV, Worker } from "node:worker_threads";
import { LockstepError } from "#lib/core/errors/index";
import type { Batch } from "#lib/core/batch";
import type { Fingerprint } from "#lib/core/held-weights";
import type { EvaluatedBatch, LossSum, WorkerJob } from "#lib/core/job";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { type PortableError, ThreadClient } from "#lib/core/thread-client";
import { passPieces, pieceBuffer, sharedWireSpace } from "#lib/core/wire-space";
import type { EngineCall, EngineReady, EngineThreadData, EngineValue } from "./engine-protocol.js";
import { numGradientBuffers } from "./session.js";

/** Writes a range of a space in wire form into bytes of its size. */
type PullRange = (range: ElementRange, into: Uint8Array) => Promise<void>;

/** An engine in a thread of its own, seen from the I/O thread. */
export class EngineClient {
  readonly #layout: ParameterLayout;
  readonly #hasFingerprints: boolean;
  /** What is trained passes through it, piece by piece. */
  readonly #parameters: Uint8Array<SharedArrayBuffer>;
  readonly #gradients: readonly Uint8Array<SharedArrayBuffer>[];
  readonly #thread: ThreadClient<EngineReady, EngineCall, EngineValue>;
  /** Estimated peak memory of this process; undefined: unknown. */
  plannedBytes: number | undefined;
  #hasFrozen = false;

  private constructor(engineModule: string, job: WorkerJob) {
    this.#layout = job.layout;
    this.#hasFingerprints = job.fingerprints === true;
    this.#parameters = pieceBuffer(job.layout);
    this.#gradients = Array.from({ length: numGradientBuffers }, () => sharedWireSpace(job.layout));
    const workerData: EngineThreadData = {
      engineModule,
      job,
      parameterBytes: this.#parameters.length,
      gradients: this.#gradients,
    };
    const thread = new Worker(new URL("./engine-thread.js", import.meta.url), {
      workerData,
      env: SHARE_ENV,
    });
    this.#thread = new ThreadClient(thread, {
      failed: (error) => new EngineFailure(error),
      died: (cause) =>
        new LockstepError("E_ENGINE_CRASHED", {
          reason: typeof cause === "number" ? `it exited with code ${cause}` : String(cause),
        }),
    });
  }

  /** @throws E_ENGINE_FAILED when the engine cannot be made, E_ENGINE_CRASHED */
  static async create(engineModule: string, job: WorkerJob): Promise<EngineClient> {
    setThreads(job);
    const client = new EngineClient(engineModule, job);
    client.plannedBytes = await client.#thread.started();
    return client;
  }

  /** Whether the engine has the weights that its job keeps as they are. */
  get hasFrozen(): boolean {
    return this.#hasFrozen;
  }

  /** Passes the engine the frozen weights piece by piece. */
  async loadFrozen(layout: ParameterLayout, pull: PullRange): Promise<void> {
    await passPieces(layout, pull, async (piece, wireBytes) => {
      const isDigested = this.#hasFingerprints;
      await this.#thread.call({ op: "loadFrozen", piece, wireBytes, isDigested });
    });
    this.#hasFrozen = true;
  }

  /**
   * Passes the engine what is trained piece by piece: when it rejects, some may be of another version.
   * @param isDigested whether it will be compared with what the engine holds
   */
  async loadParameters(pull: PullRange, isDigested: boolean): Promise<void> {
    await passPieces(
      this.#layout,
      pull,
      async (piece, wireBytes) => {
        await this.#thread.call({ op: "loadParameters", piece, wireBytes, isDigested });
      },
      this.#parameters,
    );
  }

  /** The frozen weights are to be loaded anew. */
  forgetFrozen(): void {
    this.#hasFrozen = false;
  }

  /** What the engine was given, and what it holds; nothing where it cannot tell. */
  async fingerprint(): Promise<readonly Fingerprint[]> {
    return (await this.#thread.call({ op: "fingerprint" })) as readonly Fingerprint[];
  }

  /** The whole space in wire form, as the last micro-batch of a group left it in this buffer. */
  gradients(buffer: number): Uint8Array {
    const gradients = this.#gradients[buffer];
    if (gradients === undefined) throw new RangeError(`There is no gradient buffer ${buffer}`);
    return gradients;
  }

  /**
   * @param buffer given with the group's last micro-batch: gets the group's gradient
   * @param squares whether the gradient of the batch's one row is squared
   */
  async accumulate(
    batch: Batch,
    gradScale: number,
    first: boolean,
    buffer: number | undefined,
    squares = false,
  ): Promise<LossSum> {
    const call: EngineCall = { op: "accumulate", batch, gradScale, first, squares, buffer };
    return (await this.#thread.call(call)) as LossSum;
  }

  async evaluate(batch: Batch): Promise<EvaluatedBatch> {
    return (await this.#thread.call({ op: "evaluate", batch })) as EvaluatedBatch;
  }

  async generate(
    prompt: readonly number[],
    maxNewTokens: number,
    endTokenIds: readonly number[],
  ): Promise<Int32Array> {
    const call: EngineCall = {
      op: "generate",
      prompt: Int32Array.from(prompt),
      maxNewTokens,
      endTokenIds,
    };
    return (await this.#thread.call(call)) as Int32Array;
  }

  async close(): Promise<void> {
    await this.#thread.close({ op: "close" });
  }
}

/** An engine's own error, with what the coordinator needs to judge it. */
export class EngineFailure extends LockstepError<"E_ENGINE_FAILED"> {
  readonly engineError: PortableError;

  constructor(engineError: PortableError) {
    super("E_ENGINE_FAILED", { code: engineError.code, reason: engineError.message });
    this.engineError = engineError;
    if (engineError.stack !== "") this.stack = engineError.stack;
  }
}

/** TensorFlow reads them once, when it is loaded; what else decides the bits is set there. */
function setThreads({ threadsPerWorker }: WorkerJob): void {
  process.env["TF_NUM_INTRAOP_THREADS"] = String(threadsPerWorker);
  process.env["TF_NUM_INTEROP_THREADS"] = "1";
}
