import { LockstepError } from "#lib/core/errors/index";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { hasTokenizer, loadTokenizer } from "#lib/data/index";
import { createModel, type Model, resolveWeights } from "#lib/models/index";
import type { ExportSource, WrittenWeights } from "./export-source.js";
import type { ModelPlace } from "./model-place.js";

/** How far a merged model is from its adapter beside the base. */
export interface MergeDifference {
  /** The largest difference of a logit; of a model without a head, of a hidden state. */
  readonly difference: number;
  /** The adapter's largest one, absolute. */
  readonly logit: number;
}

/**
 * The part of the largest logit by which a merged model may differ, by the type that it is written in: some times
 * what rounding costs models of a few to some dozen layers.
 */
export const defaultBounds = Object.freeze({
  float32: 1e-4,
  float16: 2e-2,
  bfloat16: 1e-1,
  q8_0: 1e-1,
});

/** What the models are asked. */
const prompts =
  "The state of the union is strong. Water boils at 100 degrees Celsius, and 7 times 8 is 56. " +
  "def add(a, b): return a + b. Dear Sir or Madam, thank you for your letter of the 3rd of May; " +
  "we have sent the new wheel today, and it should reach you within a week.";
const numRows = 4;
/** Tokens of a row. */
const longestRow = 32;
const shortestRow = 4;

/**
 * Compares logits of the merged model as it was written with those of the base model and the adapter beside
 * it, in float32.
 *
 * @param openWritten opens the written model
 * @returns undefined where the machine has not the memory for the model in float32
 */
export async function mergeDifference(
  { config, tensors, adapter }: ExportSource & Required<Pick<ExportSource, "adapter">>,
  place: ModelPlace,
  openWritten: () => Promise<WrittenWeights>,
): Promise<MergeDifference | undefined> {
  const model = createModel(config);
  const bytes = model.weights.reduce(
    (sum, { shape }) => sum + 4 * shape.reduce((product, dim) => product * dim, 1),
    0,
  );
  if (bytes > memoryShare * memoryTotalBytes()) return undefined;
  const stored = resolveWeights(model, tensors);
  const { job, added, read } = adapter.unmerged;
  const tokens = await promptTokens(place, model);
  const { outputsOfRows } = await import("#lib/evaluation/row-outputs");
  const expected = await outputsOfRows({
    ...{ model, tokens, numRows, beside: { job, added } },
    read: (name) => read(stored.get(name) ?? name),
  });
  const written = await openWritten();
  const outputs = await outputsOfRows({
    ...{ model, tokens, numRows },
    read: (name) => written.readFloat32(stored.get(name) ?? name),
  }).finally(() => written.close());
  let [difference, logit] = [0, 0];
  for (const [i, value] of expected.entries()) {
    const distance = Math.abs(value - (outputs[i] as number));
    // NaN is a difference too.
    if (!(distance <= difference)) difference = Number.isNaN(distance) ? Infinity : distance;
    logit = Math.max(logit, Math.abs(value));
  }
  return { difference, logit };
}

/** Of the machine's memory, what a model in float32 may take. */
const memoryShare = 0.5;

/** @throws E_EXPORT_DIFFERENCE @param bound part of the largest logit */
export function checkDifference(
  { difference, logit }: MergeDifference,
  { bound, dtype }: { readonly bound: number; readonly dtype: string },
): void {
  if (difference <= bound * logit) return;
  throw new LockstepError("E_EXPORT_DIFFERENCE", { difference, logit, bound, dtype });
}

/**
 * The prompts' tokens, int32 [numRows, T]; tokens from all over the vocabulary where the model has no tokenizer, or one
 * that knows next to nothing of the prompts.
 */
async function promptTokens(
  { tokenizerDirectory, modelDirectory }: ModelPlace,
  { vocabSize, maxPositions }: Model,
): Promise<Int32Array> {
  const longest = Math.min(longestRow, maxPositions);
  const tokenizer = hasTokenizer(tokenizerDirectory)
    ? await loadTokenizer(tokenizerDirectory, modelDirectory)
    : undefined;
  const ids = ((await tokenizer?.encode(prompts)) ?? new Int32Array()).filter(
    (id) => id < vocabSize,
  );
  const length = Math.min(longest, Math.floor(ids.length / numRows));
  if (length >= Math.min(shortestRow, longest)) return ids.slice(0, numRows * length);
  return Int32Array.from({ length: numRows * longest }, (_, i) => (i * 7_919) % vocabSize);
}
