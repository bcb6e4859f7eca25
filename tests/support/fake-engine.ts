import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
} from "#lib/core/bf16";
import {
  type Batch,
  countPairs,
  ignoredTarget,
  integerField,
  pairLengthsField,
  rejectedTokensField,
  valuesPerRow,
} from "#lib/core/batch";
import type {
  CreateTrainingEngine,
  EvaluatedBatch,
  TrainingEngine,
  WorkerJob,
} from "#lib/core/job";
import { type Fingerprint, heldLayout } from "#lib/core/held-weights";
import { type ElementRange, wireOffsetBytes } from "#lib/core/parameter-layout";
import { wirePieces } from "#lib/core/wire-space";
import { objectiveOf } from "#lib/objectives/index";
import { targetsOf, tokensOf } from "./batches.js";

/**
 * An engine without TensorFlow whose gradients depend, element by element, on the tokens, on the
 * parameters and on the order of the micro-batches (in float32, rounding included), so that the
 * SHA-256 of the masters at the end of a run depends on everything that a run must keep equal.
 */
export class FakeEngine implements TrainingEngine {
  readonly #job: WorkerJob;
  readonly #parameters: Float32Array;
  readonly #gradients: Float32Array;

  constructor(job: WorkerJob) {
    this.#job = job;
    this.#parameters = new Float32Array(job.layout.numElements);
    this.#gradients = new Float32Array(job.layout.numElements);
  }

  loadParameters(wireBytes: Uint8Array, piece?: number): void {
    const { layout } = this.#job;
    const whole = { start: 0, end: layout.numElements };
    const range = piece === undefined ? whole : (wirePieces(layout)[piece] ?? whole);
    const { buffer } = new Uint8Array(wireBytes);
    const firstByte = wireOffsetBytes(layout, range.start);
    for (const region of layout.regions) {
      const start = Math.max(region.start, range.start);
      const end = Math.min(region.end, range.end);
      if (start >= end) continue;
      const place = [buffer, wireOffsetBytes(layout, start) - firstByte, end - start] as const;
      const values =
        region.dtype === "float32"
          ? new Float32Array(...place)
          : (region.dtype === "bfloat16" ? bfloat16ToFloat32 : float16ToFloat32)(
              new Uint16Array(...place),
            );
      this.#parameters.set(values, start);
    }
  }

  /** What a test flips a bit of is held from then on, until the next load. */
  flip(element: number): void {
    const word = new Uint32Array(this.#parameters.buffer, element * 4, 1);
    // The lowest that a bfloat16 has.
    word[0] = (word[0] as number) ^ 0x10000;
  }

  readHeld(_space: Fingerprint["space"], piece: number, into: Uint8Array): void {
    const held = heldLayout(this.#job.layout, this.#job.precision);
    const range = wirePieces(held)[piece] as ElementRange;
    for (const { start, end, dtype } of held.regions) {
      const from = Math.max(start, range.start);
      const to = Math.min(end, range.end);
      if (from >= to) continue;
      const values = this.#parameters.slice(from, to);
      const words =
        dtype === "float32"
          ? values
          : (dtype === "bfloat16" ? float32ToBfloat16 : float32ToFloat16)(values);
      const at = wireOffsetBytes(held, from) - wireOffsetBytes(held, range.start);
      into.set(new Uint8Array(words.buffer, 0, words.byteLength), at);
    }
  }

  accumulate(
    batch: Batch,
    gradScale: number,
    first: boolean,
    wireBytes?: Uint8Array,
  ): EvaluatedBatch {
    return this.#add(batch, first, wireBytes, (gradient) => gradScale * gradient);
  }

  accumulateSquares(batch: Batch, first: boolean, wireBytes?: Uint8Array): EvaluatedBatch {
    return this.#add(batch, first, wireBytes, (gradient) => gradient ** 2 * 1e-6);
  }

  #add(
    batch: Batch,
    first: boolean,
    wireBytes: Uint8Array | undefined,
    made: (gradient: number) => number,
  ): EvaluatedBatch {
    const seed = hashBatch(batch);
    this.addGradients((value, i) => {
      const noise = ((Math.imul(seed ^ i, 2_654_435_761) >>> 8) % 2_001) - 1_000;
      return made(noise * 0.37 + value * 11);
    }, first);
    if (wireBytes !== undefined) this.writeGradients(wireBytes);
    return this.#loss(batch);
  }

  protected get parameters(): Readonly<Float32Array> {
    return this.#parameters;
  }

  /** @param first whether what was added before does not count */
  protected addGradients(
    gradientOf: (value: number, index: number) => number,
    first: boolean,
  ): void {
    for (let i = 0; i < this.#gradients.length; i++) {
      const gradient = gradientOf(this.#parameters[i] ?? 0, i);
      this.#gradients[i] = first ? gradient : (this.#gradients[i] ?? 0) + gradient;
    }
  }

  protected writeGradients(wireBytes: Uint8Array): void {
    const { layout } = this.#job;
    for (const { start, end, dtype } of layout.regions) {
      const values = this.#gradients.slice(start, end);
      const sent =
        dtype === "float32"
          ? values
          : (dtype === "bfloat16" ? float32ToBfloat16 : float32ToFloat16)(values);
      wireBytes.set(new Uint8Array(sent.buffer), wireOffsetBytes(layout, start));
    }
  }

  evaluate(batch: Batch): EvaluatedBatch {
    return this.#loss(batch);
  }

  generate(prompt: Int32Array, maxNewTokens: number): Int32Array {
    const level = Math.abs(Math.round((this.#parameters[0] ?? 0) * 1e6));
    return Int32Array.from(
      { length: maxNewTokens },
      (_, i) => ((prompt[0] ?? 0) + level + i) % 1_000,
    );
  }

  close(): void {}

  #loss(batch: Batch): EvaluatedBatch {
    const lengths = batch.fields[pairLengthsField.name];
    let weight = lengths === undefined ? 0 : countPairs(lengths);
    if (lengths === undefined) {
      for (const target of targetsOf(batch)) if (target !== ignoredTarget) weight += 1;
    }
    const { objective } = this.#job;
    const outputs = lengths === undefined ? undefined : objectiveOf(objective.kind).outputs;
    let level = 0;
    for (let i = 0; i < this.#parameters.length; i += 97)
      level += Math.abs(this.#parameters[i] ?? 0);
    return {
      lossSum: weight * (1 + (hashBatch(batch) % 1_000) / 1_000) + level / 1_000,
      weight,
      ...(outputs === undefined
        ? {}
        : {
            outputs: new Float32Array(batch.numRows * valuesPerRow(outputs(objective), 1)).fill(
              level,
            ),
          }),
    };
  }
}

function hashBatch(batch: Batch): number {
  let hash = 2_166_136_261;
  for (const token of tokensOf(batch)) hash = Math.imul(hash ^ token, 16_777_619);
  const others =
    batch.fields[rejectedTokensField.name] === undefined
      ? targetsOf(batch)
      : integerField(batch, rejectedTokensField.name);
  for (const target of others) hash = Math.imul(hash ^ target, 16_777_619);
  return hash >>> 0;
}

const create: CreateTrainingEngine = async (job) => {
  const failure = process.env["LOCKSTEP_TEST_ENGINE_FAILURE"];
  if (failure !== undefined) {
    const { LockstepError } = await import("#lib/core/errors/index");
    throw new LockstepError("E_FRAME_INVALID", { reason: failure });
  }
  return new FakeEngine(job);
};
export default create;
