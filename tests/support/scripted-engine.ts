import { ignoredTarget, type Batch } from "#lib/core/batch";
import type { CreateTrainingEngine, LossSum } from "#lib/core/job";
import { FakeEngine } from "./fake-engine.js";
import { targetsOf } from "./batches.js";

/** SGD at a rate of 1 without anything else: after step k every weight is k, in float32 and to the last bit. */
export const countingUpdates = {
  ...{ optim: "sgd", learning_rate: 1, lr_scheduler_type: "constant", weight_decay: 0 },
  ...{ max_grad_norm: 0, warmup_steps: 0 },
};

/**
 * An engine whose weights say how many steps were made, so that losses follow a script whoever computes and wherever
 * a run goes on: with {@link countingUpdates} every weight goes to the number of the step. Loss k of
 * LOCKSTEP_TEST_TRAIN_LOSSES is that of step k, loss k of LOCKSTEP_TEST_EVAL_LOSSES that of an evaluation after step
 * k, from 0 on, with commas between them.
 */
class ScriptedEngine extends FakeEngine {
  override accumulate(batch: Batch, gradScale: number, first: boolean, into?: Uint8Array): LossSum {
    const weight = weightOf(batch);
    const step = this.#stepsMade() + 1;
    this.addGradients((value) => gradScale * weight * (value - step), first);
    if (into !== undefined) this.writeGradients(into);
    return { lossSum: weight * scripted("LOCKSTEP_TEST_TRAIN_LOSSES", step), weight };
  }

  override evaluate(batch: Batch): LossSum {
    const weight = weightOf(batch);
    return { lossSum: weight * scripted("LOCKSTEP_TEST_EVAL_LOSSES", this.#stepsMade()), weight };
  }

  /** The weights that a run begins with are small. */
  #stepsMade(): number {
    return Math.round(Math.abs(this.parameters[0] ?? 0));
  }
}

function weightOf(batch: Batch): number {
  let weight = 0;
  for (const target of targetsOf(batch)) if (target !== ignoredTarget) weight += 1;
  return weight;
}

/** The last one holds on; without a script it is 1. */
function scripted(name: string, at: number): number {
  const values = (process.env[name] ?? "1").split(",").map(Number);
  return values[Math.min(at, values.length - 1)] ?? 1;
}

const create: CreateTrainingEngine = async (job) => new ScriptedEngine(job);
export default create;
