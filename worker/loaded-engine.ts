import type { WorkerJob } from "#lib/core/job";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { EngineClient } from "./engine-client.js";
import type { WorkerOptions } from "./options.js";
import type { Session } from "./session.js";

/** The engine of one job, and the version of the parameters that it holds. */
export class LoadedEngine {
  readonly jobId: string;
  readonly client: EngineClient;
  readonly #observer: WorkerOptions["observer"];
  #version: number | undefined;
  /** Whether what is trained was digested when it was loaded. */
  #isDigested = false;

  private constructor(jobId: string, client: EngineClient, observer: WorkerOptions["observer"]) {
    this.jobId = jobId;
    this.client = client;
    this.#observer = observer;
  }

  /** @throws E_ENGINE_FAILED, E_ENGINE_CRASHED */
  static async create(
    job: WorkerJob,
    { engineModule = import.meta.resolve("#lib/tuning/engine"), observer }: WorkerOptions,
  ): Promise<LoadedEngine> {
    const client = await EngineClient.create(engineModule, job);
    observer?.engineCreated?.(client.plannedBytes);
    return new LoadedEngine(job.jobId, client, observer);
  }

  /** Whether nothing has to be pulled before a task of this version. @param isDigested it is to be compared too */
  holds(version: number, isDigested: boolean): boolean {
    return this.#version === version && (this.#isDigested || !isDigested);
  }

  /** What it holds is not what it was given: all of it is loaded anew. */
  forgetWeights(): void {
    this.forgetVersion();
    this.client.forgetFrozen();
  }

  /** A coordinator that came back may publish other parameters under the same number. */
  forgetVersion(): void {
    this.#version = undefined;
  }

  /** Once for an engine: weights that are not trained stay what they are. */
  async loadFrozen(frozen: ParameterLayout, { transfers, signal }: Session): Promise<void> {
    await this.client.loadFrozen(frozen, async (range, into) =>
      transfers.pullFrozen(frozen, range, into, { signal, onRetry: this.#onRetry }),
    );
  }

  /** @returns false when the version is gone: the lease is stale */
  async load(
    version: number,
    { transfers, signal }: Session,
    isDigested: boolean,
  ): Promise<boolean> {
    this.forgetVersion();
    try {
      await this.client.loadParameters(async (range, into) => {
        await transfers.pull(version, range, into, { signal, onRetry: this.#onRetry });
        this.#observer?.bytesTransferred?.("parameters", into.length);
      }, isDigested);
    } catch (error) {
      if (remoteErrorCode(error) === "E_VERSION_NOT_PUBLISHED") return false;
      throw error;
    }
    this.#version = version;
    this.#isDigested = isDigested;
    this.#observer?.parametersLoaded?.(version);
    return true;
  }

  readonly #onRetry = (error: unknown): void => this.#observer?.retrying?.(error);
}
