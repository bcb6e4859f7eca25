import { SHARE_ENV, Worker } from "node:worker_threads";
import { LockstepError } from "#lib/core/errors/index";
import type { Batch } from "#lib/core/batch";
import type { EvaluatedBatch, LossSum, WorkerJob } from "#lib/core/job";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { passPieces, sharedWireSpace } from "#lib/core/wire-space";
import type {
  EngineCall,
  EngineError,
  EngineReply,
  EngineRequest,
  EngineThreadData,
  EngineValue,
} from "./engine-protocol.js";
import { numGradientBuffers } from "./session.js";

interface Pending {
  readonly resolve: (value: EngineValue) => void;
  readonly reject: (error: unknown) => void;
}

/** An engine in a thread of its own, seen from the I/O thread. */
export class EngineClient {
  /** The whole parameter space in wire form: written by the I/O thread, read by `loadParameters`. */
  readonly parameters: Uint8Array<SharedArrayBuffer>;
  readonly #gradients: readonly Uint8Array<SharedArrayBuffer>[];
  readonly #thread: Worker;
  readonly #pending = new Map<number, Pending>();
  /** Estimated peak memory of this process; undefined: unknown. */
  plannedBytes: number | undefined;
  #nextId = 1;
  #hasFrozen = false;
  #ended: LockstepError | undefined;

  private constructor(engineModule: string, job: WorkerJob) {
    this.parameters = sharedWireSpace(job.layout);
    this.#gradients = Array.from({ length: numGradientBuffers }, () => sharedWireSpace(job.layout));
    const workerData: EngineThreadData = {
      engineModule,
      job,
      parameters: this.parameters,
      gradients: this.#gradients,
    };
    this.#thread = new Worker(new URL("./engine-thread.js", import.meta.url), {
      workerData,
      env: SHARE_ENV,
    });
    this.#thread.on("message", (message: EngineReply) => this.#settle(message));
    this.#thread.on("error", (error) => this.#end(String(error)));
    this.#thread.on("exit", (code) => this.#end(`it exited with code ${code}`));
  }

  /** @throws E_ENGINE_FAILED when the engine cannot be made, E_ENGINE_CRASHED */
  static async create(engineModule: string, job: WorkerJob): Promise<EngineClient> {
    setThreads(job);
    const client = new EngineClient(engineModule, job);
    try {
      client.plannedBytes = (await new Promise<EngineValue>((resolve, reject) =>
        client.#pending.set(0, { resolve, reject }),
      )) as number | undefined;
    } catch (error) {
      await client.#thread.terminate();
      throw error;
    }
    return client;
  }

  /** Whether the engine has the weights that its job keeps as they are. */
  get hasFrozen(): boolean {
    return this.#hasFrozen;
  }

  /**
   * Passes the engine the frozen weights piece by piece.
   * @param pull writes a range of them in wire form
   */
  async loadFrozen(
    layout: ParameterLayout,
    pull: (range: ElementRange, into: Uint8Array) => Promise<void>,
  ): Promise<void> {
    await passPieces(layout, pull, async (piece, wireBytes) => {
      await this.#call({ op: "loadFrozen", piece, wireBytes });
    });
    this.#hasFrozen = true;
  }

  async loadParameters(): Promise<void> {
    await this.#call({ op: "loadParameters" });
  }

  /** The whole space in wire form, as the last micro-batch of a group left it in this buffer. */
  gradients(buffer: number): Uint8Array {
    const gradients = this.#gradients[buffer];
    if (gradients === undefined) throw new RangeError(`There is no gradient buffer ${buffer}`);
    return gradients;
  }

  /** @param buffer given with the group's last micro-batch: gets the group's gradient */
  async accumulate(
    batch: Batch,
    gradScale: number,
    first: boolean,
    buffer: number | undefined,
  ): Promise<LossSum> {
    return (await this.#call({ op: "accumulate", batch, gradScale, first, buffer })) as LossSum;
  }

  async evaluate(batch: Batch): Promise<EvaluatedBatch> {
    return (await this.#call({ op: "evaluate", batch })) as EvaluatedBatch;
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
    return (await this.#call(call)) as Int32Array;
  }

  async close(): Promise<void> {
    if (this.#ended === undefined) await this.#call({ op: "close" }).catch(() => {});
    await this.#thread.terminate();
  }

  async #call(call: EngineCall): Promise<EngineValue> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#nextId++;
    return new Promise<EngineValue>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      const request: EngineRequest = { id, call };
      this.#thread.postMessage(request);
    });
  }

  #settle(message: EngineReply): void {
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if ("error" in message) pending?.reject(engineFailure(message.error));
    else pending?.resolve(message.value);
  }

  #end(reason: string): void {
    this.#ended ??= new LockstepError("E_ENGINE_CRASHED", { reason });
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }
}

/** An engine's own error, with what the coordinator needs to judge it. */
export class EngineFailure extends LockstepError<"E_ENGINE_FAILED"> {
  readonly engineError: EngineError;

  constructor(engineError: EngineError) {
    super("E_ENGINE_FAILED", { code: engineError.code, reason: engineError.message });
    this.engineError = engineError;
    if (engineError.stack !== "") this.stack = engineError.stack;
  }
}

const engineFailure = (error: EngineError): EngineFailure => new EngineFailure(error);

/** TensorFlow reads them once, when it is loaded; what else decides the bits is set there. */
function setThreads({ threadsPerWorker }: WorkerJob): void {
  process.env["TF_NUM_INTRAOP_THREADS"] = String(threadsPerWorker);
  process.env["TF_NUM_INTEROP_THREADS"] = "1";
}
