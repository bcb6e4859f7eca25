/** Adapters that peft saved for models of tests/fixtures/models: tests/reference/make_lora_fixture.py. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ModelWeights } from "#lib/checkpoint/index";
import {
  AdapterDirectory,
  addLowRank,
  loraTensorName,
  rescaleRows,
  type BaseModel,
  loraPartOf,
  rankOf,
} from "#lib/checkpoint/peft/index";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import { type Batch, countTargets } from "#lib/core/batch";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import {
  buildParameterLayout,
  type ParameterLayout,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import type { Nf4Form } from "#lib/core/nf4";
import { passPieces, readWireSpace } from "#lib/core/wire-space";
import { packageRoot } from "#lib/core/paths";
import { layOutAdapter, type LoraJob } from "#lib/parameters/lora-layout";
import { type StartingModel, weightsIn } from "#lib/parameters/model";
import { frozenFormOf } from "#lib/parameters/quantization";
import { adapterFacts } from "#lib/models/facts";
import { modelFixtureDirectory, readFixtureCase } from "./model-fixtures.js";
import { readSlot, writeSlot } from "./tiny-llama.js";
import { causalJob, classifierJob, shifted, tokensOf } from "./batches.js";

const adaptedModels = ["gpt2", "llama-gqa-untied", "bert-seqcls"] as const;

export const loraFixtures = [
  ...adaptedModels,
  ...adaptedModels.map((model) => `${model}-dora` as const),
] as const;

/** The model of tests/fixtures/models that an adapter is for. */
export const modelOfLoraFixture = (name: string): string =>
  name.replace(/-(lora|rslora|dora)$/, "");

export const loraFixtureDirectory = (name: string): string =>
  join(packageRoot, "tests/fixtures/lora", name);

export interface LoraFixture {
  readonly job: WorkerJob & { readonly frozen: ParameterLayout; readonly parameters: LoraJob };
  /** The adapter, and the base's other weights, in wire form. */
  readonly trained: Uint8Array;
  readonly frozen: Uint8Array;
  /** The base model with the adapter added into it, all of it trained. */
  readonly merged: { readonly job: WorkerJob; readonly wireBytes: Uint8Array };
  readonly batch: Batch;
  readonly numTargets: number;
}

/** Gives an engine the frozen weights, from all of them in wire form. */
export async function loadFrozen(
  engine: TrainingEngine,
  layout: ParameterLayout,
  wireBytes: Uint8Array,
): Promise<void> {
  await passPieces(
    layout,
    async ({ start, end }, into) =>
      into.set(wireBytes.subarray(wireOffsetBytes(layout, start), wireOffsetBytes(layout, end))),
    (piece, bytes) => engine.loadFrozen?.(piece, bytes),
  );
}

/** The model's case as a batch; padding is a segment of its own. */
export function batchOf(name: string): Batch {
  const { numRows, rowLength, tokens, attentionMask, labels, labelsPerRow } = readFixtureCase(name);
  const isClassifier = labelsPerRow === 1;
  const positions = Int32Array.from(tokens, (_, i) => i % rowLength);
  const inputs = { tokens, segments: attentionMask, positions };
  const targets = isClassifier
    ? { label: Int32Array.from(labels) }
    : { targets: shifted(labels, rowLength) };
  return { numRows, fields: { ...inputs, ...targets } };
}

/**
 * @param form of 4 bits for linear weights that stay as they are; absent: they are of the products' type
 * @param adapterDirectory of an adapter for the model that `name` begins with
 */
export async function readLoraFixture(
  name: string,
  precision: Precision,
  {
    form,
    adapterDirectory = loraFixtureDirectory(name),
  }: { readonly form?: Nf4Form; readonly adapterDirectory?: string } = {},
): Promise<LoraFixture> {
  const modelName = modelOfLoraFixture(name);
  const directory = modelFixtureDirectory(modelName);
  const text = readFileSync(join(directory, "config.json"), "utf8");
  const modelConfig = JSON.parse(text) as Record<string, unknown>;
  const weights = await ModelWeights.open(directory);
  const adapter = await AdapterDirectory.open(adapterDirectory);
  try {
    const model: BaseModel = {
      facts: adapterFacts(modelConfig),
      weights: weights.names().map((tensor) => ({
        name: tensor,
        shape: weights.info(tensor).shape,
      })),
    };
    const frozenDtype = computeDtypes[precision];
    const settings = {
      ...{ load_in_4bit: form !== undefined, bnb_4bit_use_double_quant: form === "nf4-double" },
      ...({ bnb_4bit_quant_type: "nf4", bnb_4bit_compute_dtype: null } as const),
    };
    const split = layOutAdapter(adapter.config, model, {
      wireDtype: "float32",
      frozenDtype: frozenFormOf(settings, model, frozenDtype),
    });
    const { trained: layout, frozen: frozenLayout, job: parameters } = split;
    const trained = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout)));
    for (const { name: slot } of layout.tensors) {
      const lora = loraPartOf(slot);
      const values =
        lora === undefined
          ? await adapter.readSaved(slot)
          : await adapter.readPart(lora.path, lora.part);
      writeSlot(layout, slot, values, trained);
    }
    const read: StartingModel["read"] = async (tensor, into, span) =>
      weights.readFloat32(tensor, into, span);
    const frozen = await readWireSpace(frozenLayout, weightsIn(frozenLayout, { read }));
    const whole = buildParameterLayout(model.weights, frozenDtype);
    const wireBytes = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(whole)));
    for (const { name: slot } of model.weights) {
      const isTrained = layout.tensors.some((other) => other.name === slot);
      const values = isTrained ? readSlot(layout, slot, trained) : await weights.readFloat32(slot);
      const scale = parameters.scales[slot.replace(/\.weight$/, "")];
      if (scale !== undefined) {
        const path = slot.replace(/\.weight$/, "");
        const a = readSlot(layout, `${path}.lora_A.weight`, trained);
        const b = readSlot(layout, `${path}.lora_B.weight`, trained);
        addLowRank(values, {
          ...{ a, b, scale, rank: rankOf(adapter.config, path) },
          isTransposed: adapter.config.fan_in_fan_out,
        });
        if (parameters.useDora) {
          const magnitudes = readSlot(layout, loraTensorName(path, "magnitude"), trained);
          rescaleRows(values, magnitudes, adapter.config.fan_in_fan_out);
        }
      }
      writeSlot(whole, slot, values, wireBytes);
    }
    const batch = batchOf(modelName);
    const job = {
      jobId: "test",
      modelConfig,
      precision,
      sequenceLength: tokensOf(batch).length / batch.numRows,
      ...(batch.fields["label"] === undefined
        ? causalJob({ hasSegments: true })
        : classifierJob(Number(modelConfig["num_labels"] ?? 2))),
      microBatchSize: batch.numRows,
      evalBatchSize: batch.numRows,
      generationLength: modelName === "bert-seqcls" ? 0 : 20,
      threadsPerWorker: 1,
    };
    return {
      job: { ...job, layout, frozen: frozenLayout, parameters },
      trained,
      frozen,
      merged: { job: { ...job, layout: whole, parameters: { kind: "full" } }, wireBytes },
      batch,
      numTargets: countTargets(batch.fields["targets"] ?? batch.fields["label"]),
    };
  } finally {
    await weights.close();
    await adapter.close();
  }
}
