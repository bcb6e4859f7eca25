import type { CreateTrainingEngine } from "#lib/core/job";
import { FakeEngine } from "./fake-engine.js";

/**
 * The fake engine in a worker whose memory is faulty: LOCKSTEP_TEST_FLIPS holds the numbers of the loads, from 1, after
 * which a bit of a weight flips.
 */
class FlippingEngine extends FakeEngine {
  readonly #flips = (process.env["LOCKSTEP_TEST_FLIPS"] ?? "").split(",").map(Number);
  #numLoads = 0;

  override loadParameters(wireBytes: Uint8Array, piece?: number): void {
    super.loadParameters(wireBytes, piece);
    // The space has one piece.
    this.#numLoads += 1;
    if (this.#flips.includes(this.#numLoads)) this.flip(194);
  }
}

const create: CreateTrainingEngine = async (job) => new FlippingEngine(job);
export default create;
