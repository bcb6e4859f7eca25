/** Adapters that peft wrote, and the models that they are for: tests/fixtures/huggingface. */
import type { TestContext } from "node:test";
import { type ModelTensor, ModelWeights } from "#lib/checkpoint/index";
import { AdapterDirectory, adapterKey, type BaseModel, loraKey } from "#lib/checkpoint/peft/index";
import { adapterFacts } from "#lib/models/facts";
import { fixture } from "./support.js";

export const huggingface = (...parts: string[]): string => fixture("huggingface", ...parts);

export async function baseModel(directory: string, modelType: string): Promise<BaseModel> {
  const weights = await ModelWeights.open(huggingface(directory));
  const model = {
    facts: adapterFacts({ model_type: modelType }),
    weights: weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
  };
  await weights.close();
  return model;
}

export async function openAdapter(t: TestContext, directory: string): Promise<AdapterDirectory> {
  const adapter = await AdapterDirectory.open(directory);
  t.after(() => adapter.close());
  return adapter;
}

export const tensorsOf = (adapter: AdapterDirectory): ModelTensor[] => [
  ...adapter.modules.flatMap(({ path, rank, numInputs, numOutputs }): ModelTensor[] => [
    {
      name: loraKey(path, "A"),
      shape: [rank, numInputs],
      read: () => adapter.readPart(path, "A"),
    },
    {
      name: loraKey(path, "B"),
      shape: [numOutputs, rank],
      read: () => adapter.readPart(path, "B"),
    },
  ]),
  ...adapter.savedWeights.map((name) => ({
    name: adapterKey(name),
    shape: adapter.savedInfo(name).shape,
    read: () => adapter.readSaved(name),
  })),
];
