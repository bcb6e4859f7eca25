import { LockstepError } from "#lib/core/errors/index";

/** How a continuation is chosen and when it ends; names are those of Hugging Face's generation_config.json. */
export interface GenerationOptions {
  readonly maxNewTokens: number;
  /** Draws from the distribution; without, the most probable token is taken. */
  readonly doSample: boolean;
  /** Divides the scores before the draw. */
  readonly temperature: number;
  /** Draws from the k most probable tokens; 0 is all. */
  readonly topK: number;
  /** Draws from the most probable tokens that together reach p; 1 is all. */
  readonly topP: number;
  /** Above 1, tokens of prompt and continuation become less probable; 1 is off. */
  readonly repetitionPenalty: number;
  readonly endTokenIds: readonly number[];
  /** Texts that end a continuation; it is cut before them. */
  readonly stopStrings: readonly string[];
  /** Equal seeds give equal continuations of equal prompts. */
  readonly seed: number;
}

/** What transformers takes where neither the call nor generation_config.json says anything, except the length. */
export const generationDefaults: GenerationOptions = Object.freeze({
  maxNewTokens: 128,
  doSample: false,
  temperature: 1,
  topK: 50,
  topP: 1,
  repetitionPenalty: 1,
  endTokenIds: [],
  stopStrings: [],
  seed: 0,
});

interface NumberRule {
  readonly expected: string;
  readonly isValid: (value: number) => boolean;
}

const isPositiveInt = (value: number): boolean => Number.isSafeInteger(value) && value > 0;
const positive: NumberRule = { expected: "a positive number", isValid: (value) => value > 0 };

/** What the numbers among the options may be. */
const numberRules = {
  maxNewTokens: { expected: "a positive integer", isValid: isPositiveInt },
  temperature: positive,
  topK: {
    expected: "an integer of at least 0",
    isValid: (value) => isPositiveInt(value) || value === 0,
  },
  topP: { expected: "a number in (0, 1]", isValid: (value) => value > 0 && value <= 1 },
  repetitionPenalty: positive,
  seed: {
    expected: "an integer of at least 0",
    isValid: (value) => isPositiveInt(value) || value === 0,
  },
} as const satisfies Partial<Record<keyof GenerationOptions, NumberRule>>;

const ofNumber = ({ expected, isValid }: NumberRule) => ({
  expected,
  isValid: (value: unknown): boolean =>
    typeof value === "number" && Number.isFinite(value) && isValid(value),
});

const isListOf =
  (isValid: (value: unknown) => boolean) =>
  (value: unknown): boolean =>
    Array.isArray(value) && value.every(isValid);
const isStopString = (value: unknown): boolean => typeof value === "string" && value !== "";
const isTokenId = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0;

/** What each option may be, for a caller that was not compiled with its types. */
export const generationRules: {
  readonly [K in keyof GenerationOptions]: {
    readonly expected: string;
    readonly isValid: (value: unknown) => boolean;
  };
} = {
  maxNewTokens: ofNumber(numberRules.maxNewTokens),
  doSample: { expected: "true or false", isValid: (value) => typeof value === "boolean" },
  temperature: ofNumber(numberRules.temperature),
  topK: ofNumber(numberRules.topK),
  topP: ofNumber(numberRules.topP),
  repetitionPenalty: ofNumber(numberRules.repetitionPenalty),
  endTokenIds: { expected: "a list of token ids", isValid: isListOf(isTokenId) },
  stopStrings: { expected: "a list of texts that are not empty", isValid: isListOf(isStopString) },
  seed: ofNumber(numberRules.seed),
};

/** Options of generation_config.json that change which tokens come, with the value that means "off". */
const unsupported: Readonly<Record<string, number | null>> = {
  assistant_early_exit: null,
  bad_words_ids: null,
  begin_suppress_tokens: null,
  diversity_penalty: 0,
  encoder_no_repeat_ngram_size: 0,
  encoder_repetition_penalty: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
  exponential_decay_length_penalty: null,
  forced_bos_token_id: null,
  forced_eos_token_id: null,
  guidance_scale: 1,
  min_length: 0,
  min_new_tokens: 0,
  min_p: 0,
  no_repeat_ngram_size: 0,
  num_beam_groups: 1,
  num_beams: 1,
  penalty_alpha: 0,
  sequence_bias: null,
  suppress_tokens: null,
  top_h: null,
  typical_p: 1,
  watermarking_config: null,
};

type Json = Readonly<Record<string, unknown>>;

/**
 * The options that a generation_config.json sets; with null, and for what it leaves out, none.
 *
 * @throws E_GENERATION_CONFIG for a value that means nothing or an option that is not supported
 */
export function readGenerationConfig(file: string, json: Json): Partial<GenerationOptions> {
  const fail = (key: string, expected: string): never => {
    throw new LockstepError("E_GENERATION_CONFIG", {
      file,
      key,
      expected,
      got: JSON.stringify(json[key]),
    });
  };
  for (const [key, off] of Object.entries(unsupported)) {
    const value = json[key];
    if (value !== undefined && value !== null && value !== off) {
      fail(
        key,
        off === null
          ? "absent, since it is not supported"
          : `${off} or absent, since it is not supported`,
      );
    }
  }
  const number = (key: string, { expected, isValid }: NumberRule) => {
    const value = json[key];
    if (value === undefined || value === null) return undefined;
    return typeof value === "number" && isValid(value) ? value : fail(key, expected);
  };
  const endTokenIds = readEndTokenIds(json["eos_token_id"]) ?? fail("eos_token_id", "token ids");
  const doSample = json["do_sample"];
  if (doSample !== undefined && doSample !== null && typeof doSample !== "boolean") {
    fail("do_sample", "true or false");
  }
  const stop = json["stop_strings"] ?? [];
  const stopStrings = typeof stop === "string" ? [stop] : stop;
  if (!Array.isArray(stopStrings) || !stopStrings.every(isStopString)) {
    fail("stop_strings", "texts");
  }
  return present({
    maxNewTokens: number("max_new_tokens", numberRules.maxNewTokens),
    doSample: (doSample ?? undefined) as boolean | undefined,
    temperature: number("temperature", numberRules.temperature),
    topK: number("top_k", numberRules.topK),
    topP: number("top_p", numberRules.topP),
    repetitionPenalty: number("repetition_penalty", numberRules.repetitionPenalty),
    endTokenIds: endTokenIds.length > 0 ? endTokenIds : undefined,
    stopStrings: (stopStrings as string[]).length > 0 ? (stopStrings as string[]) : undefined,
  });
}

function readEndTokenIds(value: unknown): readonly number[] | undefined {
  if (value === undefined || value === null) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.every(isTokenId) ? (list as number[]) : undefined;
}

/** The entries that are not undefined. */
function present(
  options: {
    readonly [K in keyof GenerationOptions]?: GenerationOptions[K] | undefined;
  },
): Partial<GenerationOptions> {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<GenerationOptions>;
}
