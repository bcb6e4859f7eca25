import type { CreateTrainingEngine } from "#lib/core/job";
import { FakeEngine } from "./fake-engine.js";

/**
 * The fake engine, of which each micro-batch takes LOCKSTEP_TEST_BATCH_MS longer and each batch of an evaluation
 * LOCKSTEP_TEST_EVALUATION_MS, without a processor.
 */
class PacedEngine extends FakeEngine {
  readonly #batchMs = Number(process.env["LOCKSTEP_TEST_BATCH_MS"] ?? 0);
  readonly #evaluationMs = Number(process.env["LOCKSTEP_TEST_EVALUATION_MS"] ?? 0);
  readonly #never = new Int32Array(new SharedArrayBuffer(4));

  override accumulate(...args: Parameters<FakeEngine["accumulate"]>) {
    Atomics.wait(this.#never, 0, 0, this.#batchMs);
    return super.accumulate(...args);
  }

  override evaluate(...args: Parameters<FakeEngine["evaluate"]>) {
    Atomics.wait(this.#never, 0, 0, this.#evaluationMs);
    return super.evaluate(...args);
  }
}

const create: CreateTrainingEngine = async (job) => new PacedEngine(job);
export default create;
