import { join } from "node:path";
import { hubTokenOf, placeOf, type ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { isClassifier, knownLabels, knownProblem } from "#lib/models/classifier-checkpoint";
import { factsOf, positionKeys } from "#lib/models/facts";
import { readClassifierConfig } from "./classifier-config.js";
import { findModelDirectory, type ModelSearch, readModelConfig } from "./model-directory.js";
import { refuseAdapter } from "./model-place.js";
import type { DataContext } from "./prepare-rows.js";
import { checkSpecialTokens } from "./special-tokens.js";
import { findStartingAdapter } from "./starting-adapter.js";
import { settleTemplateDate } from "./template-date.js";

/** What rows are made with: everything of a model but its weights. */
export interface DataModel {
  readonly modelDirectory: string;
  /** Of the adapter that the run goes on training. */
  readonly adapterDirectory?: string;
  /** config.json. */
  readonly modelConfig: Readonly<Record<string, unknown>>;
  readonly tokenizer: Tokenizer;
  /** The day that the chat template writes, YYYY-MM-DD. */
  readonly date: string;
  readonly context: Omit<DataContext, "onDetail" | "observer">;
}

/**
 * Finds the model of a configuration and reads its tokenizer and its configuration, for a run and for who
 * looks at its rows: both make them with the same.
 *
 * @throws E_MODEL_NOT_FOUND, E_MODEL_IS_ADAPTER, E_JSON_FILE, E_CONFIG_UNSUPPORTED, and what downloading and
 *   loadTokenizer throw
 */
export async function openDataModel(
  asked: ResolvedConfig,
  { onDetail, ...search }: Pick<ModelSearch, "weights"> & Required<Pick<ModelSearch, "onDetail">>,
): Promise<DataModel> {
  const modelDirectory = await findModelDirectory(asked.model_name_or_path, {
    ...search,
    revision: asked.model_revision,
    token: hubTokenOf(asked),
    onDetail,
  });
  await refuseAdapter(modelDirectory, asked.model_name_or_path);
  onDetail("opening the model");
  const modelConfig = await readModelConfig(modelDirectory);
  const adapterDirectory = await findStartingAdapter(asked, { onDetail });
  const adapted =
    adapterDirectory === undefined ? undefined : await readClassifierConfig(adapterDirectory);
  const labelled = adapted ?? modelConfig;
  const date = settleTemplateDate(asked);
  const tokenizer = await loadTokenizer(modelDirectory, modelDirectory, { date });
  checkSpecialTokens(asked.special_tokens, tokenizer, placeOf(asked, "special_tokens"));
  const file = join(modelDirectory, "config.json");
  const facts = factsOf(modelConfig);
  const vocabSize = positiveInteger(modelConfig, "vocab_size", file);
  return {
    modelDirectory,
    ...(adapterDirectory === undefined ? {} : { adapterDirectory }),
    modelConfig,
    tokenizer,
    date,
    context: {
      tokenizer,
      vocabSize,
      maxPositions: maxPositionsOf(modelConfig, file),
      paddingTokenId: paddingTokenOf(modelConfig, tokenizer, vocabSize),
      usesTokenTypes: facts?.usesTokenTypes === true,
      problemType: knownProblem(labelled),
      knownLabels: knownLabels(labelled),
      learnsLabels: isClassifier(labelled) || facts?.isEncoder === true,
    },
  };
}

/** Positions that the model was made for, by its type where its file says nothing. */
function maxPositionsOf(modelConfig: Readonly<Record<string, unknown>>, file: string): number {
  const keys = positionKeys(modelConfig);
  const key = keys.find((each) => modelConfig[each] !== undefined) ?? keys[0] ?? "";
  const facts = factsOf(modelConfig);
  const positions = positiveInteger(
    { [key]: facts?.defaults.positions, ...modelConfig },
    key,
    file,
  );
  if (facts?.positionsFollowPadding !== true) return positions;
  const { pad_token_id: padTokenId = facts.defaults.padTokenId } = modelConfig;
  return positions - Number(padTokenId) - 1;
}

/** The model's padding token, else what its tokenizer has: the end token in models made without one. */
function paddingTokenOf(
  modelConfig: Readonly<Record<string, unknown>>,
  { padTokenId, eosTokenId }: Tokenizer,
  vocabSize: number,
): number {
  const own = modelConfig["pad_token_id"];
  if (typeof own === "number") return own;
  // A tokenizer's padding may be a token that the model has no embedding for.
  return [padTokenId, eosTokenId].find((id) => id !== null && id < vocabSize) ?? 0;
}

function positiveInteger(
  modelConfig: Readonly<Record<string, unknown>>,
  key: string,
  file: string,
): number {
  const value = modelConfig[key];
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  const problem = `${key} is ${JSON.stringify(value) ?? "missing"}, not a positive whole number`;
  throw new LockstepError("E_JSON_FILE", { file, problem });
}
