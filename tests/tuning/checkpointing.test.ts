/** Activation checkpointing changes no bit of loss and gradients, for every architecture. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { dependsOn, type GraphNode, neededNodes } from "#lib/graph/builder";
import { createModel, type CausalLanguageModel } from "#lib/models/index";
import createEngine from "#lib/tuning/engine";
import { buildTrainingPrograms } from "#lib/tuning/programs";
import { trainedCase } from "#tests/support/objective-cases";
import { loadFrozen, readLoraFixture } from "#tests/support/lora-fixtures";
import { tinyLlamaJob } from "#tests/support/tiny-llama";

/** Losses and the gradient of a group of one micro-batch and of one of two. */
async function gradientsOf(job: WorkerJob, wireBytes: Uint8Array, batch: Batch) {
  const engine = await createEngine(job);
  try {
    engine.loadParameters(wireBytes);
    const [single, double] = [0, 1].map(() => new Uint8Array(wireBytes.byteLength)) as [
      Uint8Array,
      Uint8Array,
    ];
    const losses = [
      engine.accumulate(batch, 0.25, true, single).lossSum,
      engine.accumulate(batch, 0.5, true).lossSum,
      engine.accumulate(batch, 0.25, false, double).lossSum,
    ];
    return { losses, single: Buffer.from(single), double: Buffer.from(double) };
  } finally {
    engine.close();
  }
}

/** A case of every architecture, and of what changes a block: norms, windows, softcaps, positions. */
const causal = ["gpt2", "llama-gqa-untied", "mistral-window8", "qwen2-tied", "qwen3-qknorm"];
const others = ["phi3-partial", "gemma2", "gemma3"];
const classifiers = ["bert-seqcls", "roberta-seqcls", "distilbert-seqcls"];

for (const name of [...causal, ...others, ...classifiers]) {
  test(`${name}: checkpointing changes no bit of losses and gradients`, async () => {
    const isFirst = name === "gpt2";
    for (const precision of isFirst ? (["fp32", "bf16", "fp16"] as const) : (["bf16"] as const)) {
      const { job, wireBytes, batch } = await trainedCase(name, precision);
      const kept = await gradientsOf(job, wireBytes, batch);
      const again = await gradientsOf({ ...job, gradientCheckpointing: true }, wireBytes, batch);
      assert.ok(kept.losses.every((loss) => Number.isFinite(loss) && loss > 0));
      assert.ok(kept.single.some((byte) => byte !== 0));
      assert.deepEqual(again.losses, kept.losses);
      assert.ok(again.single.equals(kept.single), `${precision}: a group of one`);
      assert.ok(again.double.equals(kept.double), `${precision}: a group of two`);
    }
  });
}

test("checkpointing changes no bit of an adapter's gradient", async () => {
  // The lowest layer's input needs no gradient, as nothing below it is trained.
  const { job, frozen, trained, batch } = await readLoraFixture("gpt2", "bf16");
  const gradients = [];
  for (const gradientCheckpointing of [false, true]) {
    const engine = await createEngine({ ...job, gradientCheckpointing });
    await loadFrozen(engine, job.frozen, frozen);
    engine.loadParameters(trained);
    const gradient = new Uint8Array(trained.byteLength);
    engine.accumulate(batch, 0.25, true, gradient);
    engine.close();
    gradients.push(gradient);
  }
  const [kept, again] = gradients as [Uint8Array, Uint8Array];
  assert.ok(kept.some((byte) => byte !== 0));
  assert.ok(Buffer.from(again).equals(Buffer.from(kept)));
});

test("backward reads nothing of a block's forward but its input", async () => {
  const { job } = await tinyLlamaJob("bf16", 1);
  const model = createModel(job.modelConfig) as CausalLanguageModel;
  const programs = [false, true].map((gradientCheckpointing) => {
    const built = buildTrainingPrograms(model, { ...job, gradientCheckpointing });
    const live = neededNodes(Object.values(built.gradients.only.fetches).map((t) => t.node));
    const scale = built.gradients.only.feeds["gradScale"]?.node as GraphNode;
    const backward = new Set([...live].filter((node) => dependsOn(node, scale)));
    const batchTokens = job.microBatchSize * job.sequenceLength;
    const read = new Set<GraphNode>();
    for (const node of backward) {
      for (const { node: source, shape } of node.inputs) {
        const isActivation =
          source.op !== "Const" && shape.length > 1 && shape.includes(batchTokens);
        if (isActivation && !backward.has(source)) read.add(source);
      }
    }
    return { numProducts: [...live].filter(({ op }) => op === "MatMul").length, read };
  });
  const [kept, again] = programs as [(typeof programs)[0], (typeof programs)[0]];
  const numLayers = 2;
  // Seven products a layer; the last one of a layer gives the block's output and is not needed again.
  assert.equal(again.numProducts, kept.numProducts + 6 * numLayers);
  assert.ok(kept.read.size > 10 * numLayers, `${kept.read.size} activations`);
  const names = [...again.read].map((node) => node.op);
  assert.ok(again.read.size <= numLayers + 4, names.join(", "));
});
