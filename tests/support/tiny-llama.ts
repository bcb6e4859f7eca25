import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ModelWeights } from "#lib/checkpoint/index";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
} from "#lib/core/bf16";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import {
  buildParameterLayout,
  type ParameterLayout,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { packageRoot } from "#lib/core/paths";
import { wireViewOf, wordsOf } from "#lib/tuning/wire-form";
import { causalJob } from "./batches.js";

/** A Llama of 2 layers with grouped queries, its loss and gradients as transformers computed them. */
export const tinyLlamaDirectory = join(packageRoot, "tests/fixtures/tiny-llama");

interface ReferenceCase {
  readonly input_ids: readonly (readonly number[])[];
  readonly labels: readonly (readonly number[])[];
  readonly loss: number;
  readonly greedy: { readonly prompt: readonly number[]; readonly continuation: readonly number[] };
}

const readJson = (file: string): unknown =>
  JSON.parse(readFileSync(join(tinyLlamaDirectory, file), "utf8"));

export const tinyLlamaConfig = readJson("config.json") as Record<string, unknown>;
export const tinyLlamaCase = readJson("case.json") as ReferenceCase;

/** Targets from labels: position i predicts i + 1. */
export function batchOf(reference: ReferenceCase): Batch {
  return {
    numRows: reference.input_ids.length,
    fields: {
      tokens: Int32Array.from(reference.input_ids.flat()),
      targets: Int32Array.from(reference.labels.flatMap((row) => [...row.slice(1), ignoredTarget])),
    },
  };
}

export async function tinyLlamaJob(
  precision: Precision,
  microBatchSize: number,
): Promise<{ readonly job: WorkerJob; readonly wireBytes: Uint8Array }> {
  const weights = await ModelWeights.open(tinyLlamaDirectory);
  const layout = buildParameterLayout(
    weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
    computeDtypes[precision],
  );
  const wireBytes = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout)));
  for (const slot of layout.tensors) {
    writeSlot(layout, slot.name, await weights.readFloat32(slot.name), wireBytes);
  }
  await weights.close();
  const sequenceLength = (tinyLlamaCase.input_ids[0] as readonly number[]).length;
  return {
    wireBytes,
    job: {
      jobId: "test",
      modelConfig: tinyLlamaConfig,
      layout,
      precision,
      ...causalJob(),
      sequenceLength,
      microBatchSize,
      evalBatchSize: tinyLlamaCase.input_ids.length,
      generationLength: 24,
      threadsPerWorker: 1,
      parameters: { kind: "full" },
    },
  };
}

/** Writes one tensor's values into a buffer in wire form. */
export function writeSlot(
  layout: ParameterLayout,
  name: string,
  values: Float32Array,
  wireBytes: Uint8Array,
): void {
  const slot = layout.tensors.find((candidate) => candidate.name === name);
  if (slot === undefined) throw new Error(`no tensor ${name}`);
  const view = wireViewOf(layout, slot);
  const words = wordsOf(view, wireBytes);
  if (view.words === "float32") words.set(values);
  else {
    const narrow = view.dtype === "bfloat16" ? float32ToBfloat16 : float32ToFloat16;
    narrow(values, new Uint16Array(words.buffer, words.byteOffset, slot.size));
  }
}

/** Reads one tensor's values out of a buffer in wire form. */
export function readSlot(
  layout: ParameterLayout,
  name: string,
  wireBytes: Uint8Array,
): Float32Array {
  const slot = layout.tensors.find((candidate) => candidate.name === name);
  if (slot === undefined) throw new Error(`no tensor ${name}`);
  const view = wireViewOf(layout, slot);
  const words = wordsOf(view, wireBytes);
  if (view.words === "float32") return Float32Array.from(words);
  const halves = new Uint16Array(words.buffer, words.byteOffset, slot.size);
  return view.dtype === "bfloat16" ? bfloat16ToFloat32(halves) : float16ToFloat32(halves);
}
