/** The engine in float16: near fp32 where its loss is scaled, and not finite where it overflows. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { float16ToFloat32, float32ToFloat16 } from "#lib/core/bf16";
import type { TrainingEngine } from "#lib/core/job";
import { buildParameterLayout, type TensorSlot } from "#lib/core/parameter-layout";
import { GraphBuilder } from "#lib/graph/builder";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import createEngine from "#lib/tuning/engine";
import { packWords, unpackWords, wireViewOf } from "#lib/tuning/wire-form";
import { targetsOf } from "#tests/support/batches";
import { relativeError } from "#tests/support/compare";
import {
  batchOf,
  readSlot,
  tinyLlamaCase,
  tinyLlamaDirectory,
  tinyLlamaJob,
} from "#tests/support/tiny-llama";

const batch = batchOf(tinyLlamaCase);
const numTargets = targetsOf(batch).filter((target) => target >= 0).length;

test("every half goes into the graph and out of it as it is, and float32 rounds as the shards' does", () => {
  const layout = buildParameterLayout([{ name: "m", shape: [256, 256] }], "float16");
  const view = wireViewOf(layout, layout.tensors[0] as TensorSlot);
  const graph = new GraphBuilder();
  const { feed, value } = unpackWords(graph, "feed/m", view);
  const floats = op.placeholder(graph, "feed/floats", "float32", [256, 256]);
  const fetches = { words: packWords(view, floats), wide: op.cast(value, "float32") };
  const session = new Session(graph);
  try {
    const allHalves = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);
    // Magnitudes from below the smallest half to above the largest.
    const given = Float32Array.from({ length: 65_536 }, (_, i) =>
      Math.fround(Math.sin(i) * 2 ** ((i % 45) - 27)),
    );
    const { words, wide } = session.run(
      { name: "round", feeds: { words: feed, floats }, fetches },
      { words: new Int32Array(allHalves.buffer), floats: given },
    ) as { words: Int32Array; wide: Float32Array };
    const expected = float16ToFloat32(allHalves);
    wide.forEach((found, i) => {
      if (!Object.is(found, expected[i])) assert.fail(`half ${i.toString(16)} became ${found}`);
    });
    const rounded = new Uint16Array(words.buffer, words.byteOffset, 65_536);
    assert.deepEqual(rounded, float32ToFloat16(given));
    assert.ok(rounded.includes(0x7c00) && rounded.includes(0x8001), "infinities and subnormals");
  } finally {
    session.close();
  }
});

type Space = Awaited<ReturnType<typeof tinyLlamaJob>>;

/** The gradient of the batch's mean loss times a scale, in wire form. */
function gradientsOf(engine: TrainingEngine, { wireBytes }: Space, scale: number) {
  const gradients = new Uint8Array(wireBytes.byteLength);
  const { lossSum } = engine.accumulate(batch, scale / numTargets, true, gradients);
  return { lossSum, gradients };
}

async function withEngine<R>(run: (engine: TrainingEngine, space: Space) => Promise<R>) {
  const space = await tinyLlamaJob("fp16", batch.numRows);
  const engine = await createEngine(space.job);
  try {
    engine.loadParameters(space.wireBytes);
    return await run(engine, space);
  } finally {
    engine.close();
  }
}

/** Largest relative error of a tensor's gradient, unscaled, against transformers' in float32. */
async function errorOf({ job }: Space, gradients: Uint8Array, scale: number): Promise<number> {
  const expected = await openSafetensors(join(tinyLlamaDirectory, "expected.safetensors"));
  const errors: number[] = [];
  for (const { name } of job.layout.tensors) {
    const unscaled = readSlot(job.layout, name, gradients).map((value) => value / scale);
    errors.push(relativeError(unscaled, await expected.readFloat32(`grad.${name}`)));
  }
  await expected.close();
  return Math.max(...errors);
}

test("a scaled loss has the gradients of fp32, and two engines give the same bits", async () => {
  const run = async (engine: TrainingEngine, space: Space) => {
    const { lossSum, gradients } = gradientsOf(engine, space, 1024);
    assert.ok(Math.abs(lossSum / numTargets / tinyLlamaCase.loss - 1) < 1e-3);
    assert.ok((await errorOf(space, gradients, 1024)) < 0.01);
    return gradients;
  };
  assert.deepEqual(await withEngine(run), await withEngine(run));
});

test("without its scale small gradients vanish, and with one that is too large some are infinite", async () => {
  await withEngine(async (engine, space) => {
    const [small, fitting, large] = [2 ** -12, 1024, 2 ** 24];
    const errors = [];
    for (const scale of [small, fitting]) {
      errors.push(await errorOf(space, gradientsOf(engine, space, scale).gradients, scale));
    }
    assert.ok((errors[0] as number) > 5 * (errors[1] as number), errors.join(", "));
    const { lossSum, gradients } = gradientsOf(engine, space, large);
    assert.ok(Number.isFinite(lossSum));
    const values = space.job.layout.tensors.map(({ name }) =>
      readSlot(space.job.layout, name, gradients),
    );
    assert.ok(values.some((each) => !each.every(Number.isFinite)));
  });
});

test("evaluation and generation are those of fp32, or near", async () => {
  await withEngine(async (engine) => {
    const { lossSum } = engine.evaluate(batch);
    assert.ok(Math.abs(lossSum / numTargets / tinyLlamaCase.loss - 1) < 1e-3);
    const { prompt, continuation } = tinyLlamaCase.greedy;
    assert.deepEqual([...engine.generate(Int32Array.from(prompt), 12, [])], continuation);
  });
});
