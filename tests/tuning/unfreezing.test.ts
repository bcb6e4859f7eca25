import assert from "node:assert/strict";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { countTargets } from "#lib/core/batch";
import { regionAt, wireSizeBytes } from "#lib/core/parameter-layout";
import { isEmbeddingTable } from "#lib/models/facts";
import { full } from "#lib/parameters/full";
import { unfreezingOf } from "#lib/parameters/index";
import createEngine from "#lib/tuning/engine";
import { relativeError } from "#tests/support/compare";
import { batchOf } from "#tests/support/lora-fixtures";
import {
  choiceOptions,
  methodFixture,
  methodJob,
  startingFixture,
} from "#tests/support/method-steps";
import { OptimizerRun, optimizerOf } from "#tests/support/optimizer-runs";

// tests/reference/make_unfreezing_fixture.py made the same steps with torch and requires_grad.

const numSteps = 10;
const tolerance = 1e-5;

for (const name of ["gpt2", "llama-gqa-untied", "bert-seqcls"]) {
  test(`${name}: what is unfrozen begins with Adam's step 1, what was open keeps its own, as in torch`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const unfreezing = unfreezingOf(
      { unfreeze_steps: 2, unfreeze_epochs: null, unfreeze_layers: 1 },
      { isEmbeddingTable, stepsPerEpoch: 1 },
    );
    const chosen = full.choose({}, model, { ...choiceOptions, rules: unfreezing.rules });
    const { layout } = chosen;
    const batch = batchOf(name);
    const numTargets = countTargets(batch.fields["targets"] ?? batch.fields["label"]);
    const expected = await openSafetensors(methodFixture(`unfreezing-${name}.safetensors`));
    t.after(() => expected.close());
    const losses = await expected.readFloat32("losses");
    const norms = await expected.readFloat32("norms");
    const engine = await createEngine(methodJob(model.modelConfig, batch, chosen));
    t.after(() => engine.close());

    const optimizer = optimizerOf({ optim: "adamw_torch", adam_epsilon: 1e-6, weight_decay: 0.1 });
    const start = (numUpdates: number) =>
      OptimizerRun.start(layout, optimizer, {
        ...{ numUpdates, maxGradNorm: 0.5 },
        learningRateAt: (update) => 1e-3 * (1 - update / numSteps),
      });
    let run = await start(0);
    const first = new Float32Array(layout.numElements);
    await chosen.loadMasters({ start: 0, end: first.length }, first);
    run.setMasters(first);
    for (let step = 0; step < numSteps; step++) {
      const [shard] = run.shards;
      assert.ok(shard !== undefined);
      engine.loadParameters(shard.publish());
      const wire = new Uint8Array(wireSizeBytes(layout));
      const loss = engine.accumulate(batch, 1 / numTargets, true, wire).lossSum / numTargets;
      const { gradientNorm } = await run.step(step, new Float32Array(wire.buffer));
      for (const [what, value, wanted] of [
        ["loss", loss, losses[step] ?? Number.NaN],
        ["norm", gradientNorm, norms[step] ?? Number.NaN],
      ] as const) {
        const error = Math.abs(value / wanted - 1);
        assert.ok(error < tolerance, `step ${step + 1}: ${what} ${value}, not ${wanted}`);
      }
      for (const { name: tensor, offset, size } of layout.tensors) {
        if (regionAt(layout, offset).firstUpdate <= step + 1) continue;
        const stays = shard.masters
          .subarray(offset, offset + size)
          .every((value, i) => Object.is(value, first[offset + i]));
        assert.ok(stays, `${tensor} is not open in step ${step + 1}`);
      }
      // Between two openings: what a checkpoint holds, in a new process.
      if (step !== 4) continue;
      const resumed = await start(step + 1);
      const [again] = resumed.shards;
      resumed.setMasters(shard.masters.slice());
      for (const [slot, values] of Object.entries(shard.states)) again?.states[slot]?.set(values);
      await run.close();
      run = resumed;
    }
    const [shard] = run.shards;
    for (const { name: tensor, offset } of layout.tensors) {
      const values = await expected.readFloat32(tensor);
      const own = shard?.masters.subarray(offset, offset + values.length) ?? new Float32Array();
      const error = relativeError(own, values);
      assert.ok(error < tolerance, `${tensor} differs by ${error}`);
      const from = first.subarray(offset, offset + values.length);
      assert.ok(
        own.some((value, i) => value !== from[i]),
        `${tensor} was opened`,
      );
    }
    await run.close();
  });
}
