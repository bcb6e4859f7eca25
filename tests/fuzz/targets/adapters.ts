import { join } from "node:path";
import { openAddedTensors, readAdapterBase } from "#lib/checkpoint/adapter-kind";
import { ModelWeights } from "#lib/checkpoint/index";
import {
  AdapterDirectory,
  type BaseModel,
  checkModuleNames,
  checkPatterns,
  completeLoraConfig,
  formatLoraConfig,
  parseLoraConfig,
} from "#lib/checkpoint/peft/index";
import { adapterFacts } from "#lib/models/facts";
import { readModelConfig } from "#run/model-directory";
import type { Target } from "#tests/fuzz/target";
import { closing, copyFixture, fixture, inFile, readFixture } from "./files.js";

const adapters = ["ad_llama_default", "ad_llama_all-linear"] as const;

async function baseModel(): Promise<BaseModel> {
  const directory = fixture("huggingface", "base_llama");
  const weights = await ModelWeights.open(directory);
  return closing(weights, async () => ({
    facts: adapterFacts(await readModelConfig(directory)),
    weights: weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
  }));
}

async function readAdapter(directory: string, base: BaseModel): Promise<void> {
  const adapter = await AdapterDirectory.open(directory);
  await closing(adapter, async () => {
    adapter.checkAgainst(base);
    for (const { path } of adapter.modules) {
      await adapter.readPart(path, "A");
      await adapter.readPart(path, "B");
      if (adapter.config.use_dora) await adapter.readPart(path, "magnitude");
    }
    const { config } = adapter;
    checkPatterns(config);
    checkModuleNames(config, base);
    const complete = completeLoraConfig(config, base);
    parseLoraConfig(JSON.parse(formatLoraConfig(complete)), "what was written");
  });
}

const adapterFile = (
  name: string,
  file: string,
  form: "json" | "bytes",
  share: number,
): Target => ({
  name,
  share,
  async open(folder) {
    const names = ["adapter_config.json", "adapter_model.safetensors"];
    copyFixture(fixture("huggingface", adapters[0]), folder, names);
    const base = await baseModel();
    return {
      kind: "bytes",
      form,
      corpus: adapters.map((adapter) => readFixture("huggingface", adapter, file)),
      words: [
        "(a+)+$",
        "((.)*)*x",
        "(?!a)",
        "{9}",
        "(.*)*x",
        ".*q_proj",
        "all-linear",
        "[",
        "\\d{1,99999}",
        "(?<=a)",
      ],
      read: inFile(join(folder, file), () => readAdapter(folder, base)),
    };
  },
});

/** Tensors beside a base model's weights: virtual tokens of peft, bottlenecks of AdapterHub's library. */
const besideFile = (
  name: string,
  { of, file, weights }: { readonly of: string; readonly file: string; readonly weights: string },
): Target => ({
  name,
  share: 1,
  async open(folder) {
    copyFixture(fixture("methods", of), folder, ["adapter_config.json", weights]);
    const base = {
      ...{ vocabSize: 128, width: 48, numLayers: 2 },
      bottlenecks: adapterFacts({ model_type: "gpt2" }).bottlenecks,
    };
    return {
      kind: "bytes",
      form: file === weights ? "bytes" : "json",
      corpus: [readFixture("methods", of, file)],
      words: ["PROMPT_TUNING", "swish", "lockstep"],
      read: inFile(join(folder, file), async () => {
        await readAdapterBase(folder);
        const added = await openAddedTensors(folder);
        if (added === undefined) return;
        await closing(added, async () => {
          added.jobFor(base);
          for (const tensor of added.added) await added.readAdded(tensor.name);
          for (const weight of added.savedWeights) await added.readSaved(weight);
        });
      }),
    };
  },
});

const prompts = { of: "prompt-gpt2", weights: "adapter_model.safetensors" };
const bottlenecks = { of: "bottleneck-gpt2", weights: "adapter.safetensors" };

export const targets: readonly Target[] = [
  besideFile("adapters/prompt-config", { ...prompts, file: "adapter_config.json" }),
  besideFile("adapters/prompt-weights", { ...prompts, file: prompts.weights }),
  besideFile("adapters/bottleneck-config", { ...bottlenecks, file: "adapter_config.json" }),
  besideFile("adapters/bottleneck-weights", { ...bottlenecks, file: bottlenecks.weights }),
  adapterFile("adapters/config", "adapter_config.json", "json", 3),
  adapterFile("adapters/weights", "adapter_model.safetensors", "bytes", 1),
];
