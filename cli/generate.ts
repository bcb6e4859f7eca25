import { LockstepError } from "#lib/core/errors/index";
import { checkVocabulary, type Tokenizer } from "#lib/data/index";
import { type GenerationOptions, Generator } from "#lib/evaluation/generate/index";
import type { CausalLanguageModel, Model } from "#lib/models/index";
import { openModel } from "#run/open-model";
import { encodePrompt, generationOptionsOf, withinPositions } from "#run/text-generator";
import { counted } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { usageOf } from "./command-line.js";
import { findTextModel, type ModelRequest, parseModelArguments } from "./text-command.js";

/** Rows that are continued at a time; memory of their cached keys and values grows with it. */
const maxBatchSize = 8;

interface Request extends ModelRequest {
  readonly prompts: readonly string[];
  readonly isChat: boolean;
  readonly system: string | undefined;
  readonly options: Partial<GenerationOptions>;
}

/** `lockstep generate`. Returns the exit code; errors of the catalogue are thrown. */
export async function generateCommand(args: string[]): Promise<number> {
  const request = parse(args);
  const { place, tokenizer } = await findTextModel(request);
  const given: GenerationOptions = {
    ...(await generationOptionsOf(place.modelDirectory, tokenizer)),
    ...request.options,
  };
  const prompts = await Promise.all(
    request.prompts.map((prompt) => promptTokens(tokenizer, request, prompt)),
  );
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  const { model, readWeight, warnings, close } = await openModel(place);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  let generator: Generator;
  let options: GenerationOptions;
  try {
    for (const [i, prompt] of prompts.entries()) {
      const document = `--prompt ${i + 1}`;
      checkVocabulary(prompt, { tokenizer, vocabSize: model.vocabSize, document });
    }
    options = withinPositions(given, longest, model.maxPositions, request.options.maxNewTokens);
    generator = await Generator.create({
      model: causalModel(model),
      readWeight,
      batchSize: Math.min(prompts.length, maxBatchSize),
      maxLength: longest + options.maxNewTokens,
      precision: request.bf16 ? "bf16" : "fp32",
    });
  } finally {
    await close();
  }
  try {
    await writeContinuations(generator, tokenizer, request, prompts, options);
  } finally {
    generator.close();
  }
  return 0;
}

/** One prompt's text appears as it comes; of several, each when all are done. */
async function writeContinuations(
  generator: Generator,
  tokenizer: Tokenizer,
  request: Request,
  prompts: readonly Int32Array[],
  options: GenerationOptions,
): Promise<void> {
  const isStreamed = prompts.length === 1 && !request.json;
  const out = process.stdout;
  const startedAt = performance.now();
  const continuations = await generator.generate(prompts, options, {
    decode: (tokens) => tokenizer.decode(tokens),
    ...(isStreamed ? { onText: (_: number, piece: string) => void out.write(safe(piece)) } : {}),
  });
  const seconds = (performance.now() - startedAt) / 1000;
  continuations.forEach(({ text = "", tokens, finish }, index) => {
    const prompt = request.prompts[index] ?? "";
    if (request.json) {
      out.write(`${JSON.stringify({ prompt, text, tokens: [...tokens], finish })}\n`);
    } else if (isStreamed) {
      out.write("\n");
    } else {
      out.write(`> ${safe(prompt)}\n${safe(text)}\n\n`);
    }
  });
  const numTokens = continuations.reduce((sum, { tokens }) => sum + tokens.length, 0);
  process.stderr.write(
    `${counted(numTokens, "token")} in ${seconds.toFixed(1)} s (${(numTokens / seconds).toFixed(1)} a second)\n`,
  );
}

/** A model may write control characters; lines stay lines. */
const safe = (text: string): string => printable(text, true);

function causalModel(model: Model): CausalLanguageModel {
  if (model.task === "causal-lm") return model;
  throw new LockstepError("E_USAGE", {
    command: "generate",
    problem: `a ${model.task} model (${model.modelType}) continues no text`,
  });
}

async function promptTokens(
  tokenizer: Tokenizer,
  request: Request,
  prompt: string,
): Promise<Int32Array> {
  if (!request.isChat) {
    const ids = await encodePrompt(tokenizer, prompt);
    const [first] = tokenizer.prefixTokenIds;
    if (first !== undefined && ids[tokenizer.prefixTokenIds.length] === first) {
      const token = printable(tokenizer.tokenOf(first) ?? String(first));
      process.stderr.write(
        `warning: a prompt begins with ${token}, which the tokenizer writes too\n`,
      );
    }
    return ids;
  }
  const messages = [
    ...(request.system === undefined ? [] : [{ role: "system", content: request.system }]),
    { role: "user", content: prompt },
  ];
  return encodePrompt(tokenizer, messages);
}

const ownOptions = {
  prompt: { type: "string", multiple: true },
  chat: { type: "boolean", default: false },
  system: { type: "string" },
  "max-new-tokens": { type: "string" },
  temperature: { type: "string" },
  "top-k": { type: "string" },
  "top-p": { type: "string" },
  "repetition-penalty": { type: "string" },
  stop: { type: "string", multiple: true },
  seed: { type: "string" },
} as const;

/** @throws E_USAGE */
function parse(args: string[]): Request {
  const fail = usageOf("generate");
  const { request, values } = parseModelArguments(args, ownOptions, fail);
  const prompts = values.prompt ?? [];
  if (prompts.length === 0 || prompts.includes("")) return fail("it needs --prompt TEXT");
  if (values.system !== undefined && !values.chat) return fail("--system needs --chat");
  const number = (
    key: "max-new-tokens" | "temperature" | "top-k" | "top-p" | "repetition-penalty" | "seed",
    isValid: (value: number) => boolean,
    expected: string,
  ): number | undefined => {
    const text = values[key];
    if (text === undefined) return undefined;
    return text.trim() !== "" && isValid(Number(text))
      ? Number(text)
      : fail(`--${key} ${text} is not ${expected}`);
  };
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
  const maxNewTokens = number("max-new-tokens", (v) => isCount(v) && v > 0, "a positive integer");
  const temperature = number("temperature", (v) => v >= 0, "a number of at least 0");
  const topK = number("top-k", isCount, "a whole number");
  const topP = number("top-p", (v) => v > 0 && v <= 1, "a number in (0, 1]");
  const repetitionPenalty = number("repetition-penalty", (v) => v > 0, "a positive number");
  const seed = number("seed", isCount, "a whole number");
  // Whoever names an option of sampling wants to sample.
  const doSample =
    temperature === 0
      ? false
      : temperature !== undefined || topK !== undefined || topP !== undefined || undefined;
  const options = {
    maxNewTokens,
    doSample: doSample === true || temperature === 0 ? doSample : undefined,
    temperature: temperature === 0 ? undefined : temperature,
    topK,
    topP,
    repetitionPenalty,
    seed,
    stopStrings: values.stop,
  };
  if (values.stop?.includes("") === true) return fail("--stop needs a text");
  return {
    ...request,
    prompts,
    isChat: values.chat,
    system: values.system,
    options: Object.fromEntries(
      Object.entries(options).filter(([, value]) => value !== undefined),
    ) as Partial<GenerationOptions>,
  };
}
