import type { ModelTensor } from "#lib/checkpoint/index";
import { LockstepError } from "#lib/core/errors/index";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { hasTokenizer, loadTokenizer } from "#lib/data/index";
import { createModel, type Model, resolveWeights } from "#lib/models/index";
import type { ExportSource, WrittenWeights } from "./export-source.js";
import type { GgufDtype } from "./gguf-file.js";
import type { ModelPlace } from "./model-place.js";

/** How far a merged model is from its adapter beside the base. */
export interface MergeDifference {
  /** The largest difference of a logit; of a model without a head, of a hidden state. */
  readonly difference: number;
  /** The same before the weights were rounded to their type. */
  readonly unrounded: number;
  /** The adapter's largest one, absolute. */
  readonly logit: number;
}

/**
 * The part of the largest logit by which a merged model may differ, by the type that it is written in. In float32 it is
 * what sums of the comparison itself lose. Of the others it is 64 times the root mean square of what rounding takes of a
 * weight (2.1e-4, 1.7e-3 and 5.4e-3): independent errors make the root of 1 + 6n of them in n layers, 22 in 80, and the
 * largest of many logits some more. docs/export.md has the derivation, and what was measured.
 */
const defaultBounds = Object.freeze({
  float32: 1e-4,
  float16: 0.013,
  bfloat16: 0.1,
  q8_0: 0.3,
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
 * @param written the type that the model was written in, and what opens it
 * @returns undefined where the machine has not the memory for the model in float32
 */
export async function mergeDifference(
  { config, tensors, adapter }: ExportSource & Required<Pick<ExportSource, "adapter">>,
  place: ModelPlace,
  written: { readonly dtype: GgufDtype; readonly open: () => Promise<WrittenWeights> },
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
  const outputsWith = (readSource: (source: string) => Promise<Float32Array>) =>
    outputsOfRows({
      ...{ model, tokens, numRows },
      read: (name) => readSource(stored.get(name) ?? name),
    });
  const outputs = await outputsOfWritten(written.open, outputsWith);
  const merged = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const unrounded =
    written.dtype === "float32"
      ? outputs
      : await outputsWith(async (name) => (merged.get(name) as ModelTensor).read());
  return {
    difference: largestDistance(expected, outputs),
    unrounded: largestDistance(expected, unrounded),
    logit: expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0),
  };
}

async function outputsOfWritten(
  open: () => Promise<WrittenWeights>,
  outputsWith: (read: WrittenWeights["readFloat32"]) => Promise<Float32Array>,
): Promise<Float32Array> {
  const weights = await open();
  try {
    return await outputsWith((name) => weights.readFloat32(name));
  } finally {
    await weights.close();
  }
}

function largestDistance(expected: Float32Array, outputs: Float32Array): number {
  let largest = 0;
  for (const [i, value] of expected.entries()) {
    const distance = Math.abs(value - (outputs[i] as number));
    // NaN is a difference too.
    if (!(distance <= largest)) largest = Number.isNaN(distance) ? Infinity : distance;
  }
  return largest;
}

/** Of the machine's memory, what a model in float32 may take. */
const memoryShare = 0.5;

/**
 * Before it is rounded a merged model is the adapter's but for sums in float32: what is wrong with a merge does not hide
 * behind what its type rounds.
 *
 * @param bound part of the largest logit; absent: by type
 * @throws E_EXPORT_DIFFERENCE
 */
export function checkDifference(
  { difference, unrounded, logit }: MergeDifference,
  { bound, dtype }: { readonly bound: number | undefined; readonly dtype: GgufDtype },
): void {
  const check = (actual: number, type: GgufDtype): void => {
    const allowed = bound ?? defaultBounds[type];
    if (actual <= allowed * logit) return;
    throw new LockstepError("E_EXPORT_DIFFERENCE", {
      ...{ difference: actual, logit, bound: allowed, dtype: type },
    });
  };
  check(unrounded, "float32");
  check(difference, dtype);
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
