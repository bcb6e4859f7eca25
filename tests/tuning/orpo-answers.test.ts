/** ORPO whose loss of the chosen sequence is of its answer alone, as LLaMA-Factory has it. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { type Batch, countTargets, ignoredTarget, integerField } from "#lib/core/batch";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { objectiveOf } from "#lib/objectives/index";
import { full } from "#lib/parameters/full";
import createEngine from "#lib/tuning/engine";
import { causalJob } from "#tests/support/batches";
import { assertClose } from "#tests/support/compare";
import { choiceOptions, startingFixture } from "#tests/support/method-steps";
import {
  pairBatch,
  pairCases,
  pairGradients,
  pairObjectiveJob,
  perturbed,
} from "#tests/support/pair-cases";
import { readSlot, writeSlot } from "#tests/support/tiny-llama";

const name = "orpo";
type Asked = Pick<WorkerJob, "objective" | "batchFields">;

test("loss and gradients are TRL's with the mean over the answer in the place of the one over the sequence", async (t) => {
  const pairs = pairCases[name];
  assert.ok(pairs !== undefined);
  const settings = { ...pairs.settings, orpo_nll_tokens: "answer" };
  const objective = pairObjectiveJob({ ...pairs, settings });
  assert.equal(objective.settings?.["nllTokens"], "answer");
  const targets = objectiveOf(objective.kind).targets(objective);
  const { rowLength, ...batch } = pairBatch(pairs, targets);
  const model = await startingFixture(pairs.model);
  t.after(() => model.close());
  const { layout, job: parameters } = full.choose({}, model, choiceOptions);
  const common: Omit<WorkerJob, keyof Asked | "microBatchSize" | "evalBatchSize"> = {
    ...{ jobId: "test", modelConfig: model.modelConfig, layout, parameters },
    ...{ precision: "fp32", sequenceLength: rowLength, generationLength: 0, threadsPerWorker: 1 },
  };
  const parameterBytes = new Uint8Array(wireSizeBytes(layout));
  for (const { name: tensor } of layout.tensors) {
    writeSlot(layout, tensor, perturbed(await model.read(tensor)), parameterBytes);
  }
  const open = async (rows: number, job: Asked): Promise<TrainingEngine> => {
    const sizes = { microBatchSize: rows, evalBatchSize: rows };
    return opened(t, { ...common, ...job, ...sizes }, parameterBytes);
  };
  const engine = await open(batch.numRows, {
    objective,
    batchFields: [...causalJob().batchFields.slice(0, 1), ...targets],
  });
  const numPairs = batch.numRows - 1;
  const wire = new Uint8Array(wireSizeBytes(layout));
  const { lossSum, outputs } = engine.accumulate(batch, 1 / numPairs, true, wire);

  // LLaMA-Factory's: sft_loss = -chosen_logps; orpo_loss = sft_loss + beta * -logsigmoid(log_odds).
  const { "logps/chosen": logps = Number.NaN, log_odds_ratio: ratio = Number.NaN } = pairs.figures;
  const theirs = -logps - Number(pairs.settings["beta"]) * ratio;
  assert.ok(Math.abs(lossSum / numPairs - theirs) < 1e-5, `${lossSum / numPairs}, not ${theirs}`);
  const scorer = objectiveOf(objective.kind).scorer?.(objective);
  scorer?.add(batch, outputs);
  assert.ok(Math.abs((scorer?.values()["nll_loss"] ?? Number.NaN) + logps) < 1e-5);

  // TRL's gradient is torch's; those of both means are the next token's, which other fixtures check.
  const causal = await open(1, causalJob());
  const [answers, sequences] = [new Uint8Array(wire.length), new Uint8Array(wire.length)];
  for (const [into, next] of [
    [answers, answerOf],
    [sequences, sequenceOf],
  ] as const) {
    for (let pair = 0; pair < numPairs; pair++) {
      const row = next(batch, pair, rowLength);
      const scale = 1 / (numPairs * countTargets(row.fields["targets"]));
      causal.accumulate(row, scale, pair === 0, pair === numPairs - 1 ? into : undefined);
    }
  }
  const trl = await openSafetensors(pairGradients(name));
  t.after(() => trl.close());
  for (const { name: tensor } of layout.tensors) {
    const [ofAnswers, ofSequences] = [answers, sequences].map((from) =>
      readSlot(layout, tensor, from),
    );
    const exact = (await trl.readFloat32(tensor)).map(
      (value, i) => value + (ofAnswers?.[i] ?? 0) - (ofSequences?.[i] ?? 0),
    );
    assertClose(readSlot(layout, tensor, wire), exact, 2e-5, tensor);
  }
});

async function opened(
  t: TestContext,
  job: WorkerJob,
  parameterBytes: Uint8Array,
): Promise<TrainingEngine> {
  const engine = await createEngine(job);
  t.after(() => engine.close());
  engine.loadParameters(parameterBytes);
  return engine;
}

/** A pair's chosen sequence as a row of which the answer is learnt. */
function answerOf(batch: Batch, pair: number, rowLength: number): Batch {
  const part = (field: string): Int32Array =>
    integerField(batch, field).slice(pair * rowLength, (pair + 1) * rowLength);
  return { numRows: 1, fields: { tokens: part("tokens"), targets: part("targets") } };
}

/** The same, of which every token is. */
function sequenceOf(batch: Batch, pair: number, rowLength: number): Batch {
  const { fields } = answerOf(batch, pair, rowLength);
  const length = integerField(batch, "pairLengths")[2 * pair] ?? 0;
  const targets = new Int32Array(rowLength).fill(ignoredTarget);
  targets.set(integerField({ numRows: 1, fields }, "tokens").subarray(1, length));
  return { numRows: 1, fields: { ...fields, targets } };
}
