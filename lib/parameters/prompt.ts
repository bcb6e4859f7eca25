import { z } from "zod";
import { classifierHeads, isSavedWhole } from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { fillNormal, RandomStream } from "#lib/core/random";
import { fillRange } from "#lib/core/wire-space";
import type { ParametersKind } from "./kind.js";
import { numElements, type StartingModel, weightsIn } from "./model.js";
import { savePrompt } from "./prompt-files.js";
import { type PromptJob, promptWeightName } from "./prompt-layout.js";
import { tokenTable } from "./token-table.js";

// Names and values of peft.PromptTuningConfig (0.21), which has no default for the number of tokens.
const fields = {
  num_virtual_tokens: z
    .int()
    .min(1)
    .max(4096)
    .default(20)
    .describe("how many vectors stand before the tokens of each row"),
  prompt_tuning_init: z
    .enum(["RANDOM", "TEXT", "SAMPLE_VOCAB"])
    .default("RANDOM")
    .describe(
      "what they begin as: normal numbers, the tokens of prompt_tuning_init_text, or tokens by chance",
    ),
  prompt_tuning_init_text: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("text whose tokens they begin as, cut or repeated to their number"),
};

type PromptSettings = z.output<z.ZodObject<typeof fields>>;

/** Vectors before those of a row's tokens (prompt tuning, Lester et al. 2021); the model stays as it is. */
export const prompt = {
  name: "prompt",
  title: "prompt tuning",
  summary: "virtual tokens (finetuning_type: prompt)",
  turnedOnBy: ["finetuning_type", "prompt"],
  fields,
  wireDtype: "float32",
  saves: "adapter",
  changesForward: true,
  addedTokens: ({ num_virtual_tokens }) => num_virtual_tokens,

  choose(config, model, { wireDtype, frozenDtype, rules, seed }) {
    checkText(config);
    const isNew = new Set(model.newWeights);
    // As in peft a classifier's head is trained and saved whole; so is what nobody else has.
    const isHead = (name: string): boolean =>
      model.isClassifier && isSavedWhole(classifierHeads, name);
    const whole = model.weights.filter(({ name }) => isNew.has(name) || isHead(name));
    const names = new Set(whole.map(({ name }) => name));
    const table = tokenTable(model);
    const [vocabSize, width] = table.shape;
    const count = config.num_virtual_tokens;
    const trained = [...whole, { name: promptWeightName, shape: [count, width] }];
    const layout = buildParameterLayout(
      trained.sort((a, b) => (a.name < b.name ? -1 : 1)),
      wireDtype,
      rules,
    );
    const frozen = buildParameterLayout(
      model.weights.filter(({ name }) => !names.has(name)),
      frozenDtype,
    );
    const numTrained = numElements(layout.tensors);
    const total = numTrained + numElements(frozen.tensors);
    const head = whole.length === 0 ? "" : " and the head";
    return {
      layout,
      frozen,
      job: { kind: "prompt", numVirtualTokens: count, vocabSize } satisfies PromptJob,
      loadMasters: (range, into) =>
        fillRange(layout, range, into, async ({ name }) =>
          name === promptWeightName ? firstVectors(config, model, table, seed) : model.read(name),
        ),
      loadFrozen: weightsIn(frozen, model),
      lines: [
        `${counted(count, "virtual token")}${head}: ${withCommas(numTrained)} of ${withCommas(total)} parameters are trained`,
      ],
      adapterBase: model.name,
      save: (directory, content) => savePrompt(directory, { model, config, layout }, content),
    };
  },
} as const satisfies ParametersKind<typeof fields>;

/** @throws E_CONFIG_CONFLICT where one of the two is given without the other */
function checkText({ prompt_tuning_init: init, prompt_tuning_init_text: text }: PromptSettings) {
  if ((init === "TEXT") === (text !== null)) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "prompt_tuning_init and prompt_tuning_init_text",
    reason: text === null ? "TEXT needs a text" : `with ${init} the text has no effect`,
  });
}

/** float32 [P, D]. @throws E_CONFIG_INVALID for a text without tokens */
async function firstVectors(
  { num_virtual_tokens: count, prompt_tuning_init: init, prompt_tuning_init_text }: PromptSettings,
  { read, encode, facts }: StartingModel,
  { name, shape: [numRows, width] }: ReturnType<typeof tokenTable>,
  seed: number,
): Promise<Float32Array> {
  const values = new Float32Array(count * width);
  // Numbers of their own: those of a new head have the streams from 0 on.
  const random = new RandomStream(seed, "initialization", 900);
  if (init === "RANDOM") {
    fillNormal(values, 1, random);
    return values;
  }
  const ids = init === "TEXT" ? await encode?.(prompt_tuning_init_text ?? "") : undefined;
  if (init === "TEXT" && (ids === undefined || ids.length === 0)) {
    throw new LockstepError("E_CONFIG_INVALID", {
      ...{ key: "prompt_tuning_init_text", expected: "a text with tokens", where: "" },
      got: JSON.stringify(prompt_tuning_init_text),
    });
  }
  for (let i = 0; i < count; i++) {
    const id = ids === undefined ? random.nextBelow(numRows) : (ids[i % ids.length] as number);
    await read(name, values.subarray(i * width, (i + 1) * width), {
      start: id * width,
      count: width,
    });
  }
  // They stand where the model's own vectors do, which Gemma's layers get so many times larger.
  const factor = facts.scalesTokens === true ? Math.fround(Math.sqrt(width)) : 1;
  return values.map((value) => factor * value);
}
