import assert from "node:assert/strict";
import type { Batch } from "#lib/core/batch";
import type { DropoutRates } from "#lib/core/dropout";
import type { WorkerJob } from "#lib/core/job";
import createEngine from "#lib/tuning/engine";
import { loadFrozen } from "./lora-fixtures.js";
import { readSlot } from "./tiny-llama.js";

/** What a script recorded of one micro-batch in training. */
export interface DropoutCase {
  readonly rates: DropoutRates;
  /** Places that draw. */
  readonly places: number;
  readonly loss: number;
  /** Outside of training. */
  readonly evaluationLoss: number;
  /** Norm, and product with the cosines of 1, 2, 3 ... */
  readonly gradients: Readonly<Record<string, readonly [norm: number, product: number]>>;
}

interface Computed {
  readonly job: WorkerJob;
  /** Means over what counts. */
  readonly loss: number;
  readonly evaluationLoss: number;
  readonly gradients: Uint8Array;
}

/** One micro-batch as a group, and its evaluation. */
export async function compute(
  job: WorkerJob,
  wireBytes: Uint8Array,
  batch: Batch,
  frozen?: Uint8Array,
): Promise<Computed> {
  const engine = await createEngine(job);
  try {
    if (job.frozen !== undefined && frozen !== undefined) {
      await loadFrozen(engine, job.frozen, frozen);
    }
    engine.loadParameters(wireBytes);
    const evaluated = engine.evaluate(batch);
    const { weight } = evaluated;
    const gradients = new Uint8Array(wireBytes.byteLength);
    const { lossSum } = engine.accumulate(batch, 1 / weight, true, gradients);
    return { job, gradients, loss: lossSum / weight, evaluationLoss: evaluated.lossSum / weight };
  } finally {
    engine.close();
  }
}

/** A key's bias has no gradient: softmax does not see it. */
const isZeroInExactArithmetic = (name: string): boolean => /(self\.key|k_lin)\.bias$/.test(name);

export function assertAsExpected(
  { job, gradients, ...losses }: Computed,
  expected: DropoutCase,
): void {
  assert.ok(Math.abs(losses.loss / expected.loss - 1) < 1e-5, `loss ${losses.loss}`);
  assert.ok(Math.abs(losses.evaluationLoss / expected.evaluationLoss - 1) < 1e-5);
  assert.ok(Math.abs(losses.loss / losses.evaluationLoss - 1) > 1e-3, "something is drawn");
  const names = job.layout.tensors.map(({ name }) => name);
  assert.deepEqual(names.toSorted(), Object.keys(expected.gradients).toSorted());
  for (const name of names.filter((each) => !isZeroInExactArithmetic(each))) {
    const values = readSlot(job.layout, name, gradients);
    const [norm, product] = expected.gradients[name] as readonly [number, number];
    const ours = values.reduce((sum, value, i) => sum + value * Math.cos(i + 1), 0);
    const difference = Math.abs(Math.hypot(...values) - norm) + Math.abs(ours - product);
    assert.ok(difference <= 2e-4 * Math.max(norm, 1e-6), `${name}: ${difference} of ${norm}`);
  }
}
