import { cpuCount } from "#lib/core/cpu-count";
import { LockstepError } from "#lib/core/errors/index";
import { checkVocabulary, type ReadText, readTexts, type Tokenizer } from "#lib/data/index";
import { expandHome } from "#lib/core/home-path";
import { type ClassScore, classScores, TextClassifier } from "#lib/evaluation/classify/index";
import { setTextThreads } from "#lib/evaluation/side-by-side";
import { knownLabels } from "#lib/models/classifier-checkpoint";
import { factsOf } from "#lib/models/facts";
import type { Model, SequenceClassifier } from "#lib/models/index";
import { openModel } from "#run/open-model";
import { counted, shownNumber } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { usageOf } from "./command-line.js";
import { findTextModel, type ModelRequest, parseModelArguments } from "./text-command.js";

/** Rows that are computed at a time. */
const maxBatchSize = 8;
/** Texts that wait for each other, so that those of like length are computed together. */
const chunkTexts = 256;

interface Request extends ModelRequest {
  /** All of them, as often as they are asked for. */
  readonly texts: () => AsyncIterable<ReadText> | Iterable<ReadText>;
  readonly hasPlaces: boolean;
  readonly top: number;
}

interface EncodedText extends ReadText {
  readonly ids: Int32Array;
  readonly typeIds: Int32Array;
  readonly truncatedTokens: number;
}

/** `lockstep classify`. Returns the exit code; errors of the catalogue are thrown. */
export async function classifyCommand(args: string[]): Promise<number> {
  const request = parse(args);
  const { place, tokenizer } = await findTextModel(request);
  const opened = await openModel(place);
  setTextThreads(cpuCount());
  let classifier: TextClassifier;
  let model: SequenceClassifier;
  let size: { numTexts: number; longest: number };
  try {
    for (const warning of opened.warnings) process.stderr.write(`warning: ${warning}\n`);
    model = sequenceClassifier(opened.model);
    checkTop(request, model);
    // Every text is looked at before the first is computed, which also says how long they are.
    size = await measure(request, tokenizer, model);
    // Without a padding token a decoder finds a row's last token only where the row is alone.
    const isAlone = model.padTokenId === null;
    classifier = await TextClassifier.create({
      model,
      readWeight: opened.readWeight,
      maxLength: size.longest,
      batchSize: isAlone ? 1 : Math.min(size.numTexts, maxBatchSize),
      precision: request.bf16 ? "bf16" : "fp32",
      hasTokenTypes: factsOf(opened.config)?.usesTokenTypes === true,
    });
  } finally {
    await opened.close();
  }
  const startedAt = performance.now();
  try {
    const labels = knownLabels(opened.config);
    const figure = model.problemType === "regression" ? shownNumber : probability;
    for await (const chunk of inChunks(encodeAll(request, tokenizer, model))) {
      const logits = logitsOf(classifier, chunk);
      chunk.forEach((text, index) => {
        const scores = classScores(model, labels, logits[index] ?? []).slice(0, request.top);
        process.stdout.write(
          request.json ? jsonLine(request, text, scores) : lines(text, scores, figure),
        );
      });
    }
  } finally {
    classifier.close();
  }
  const seconds = (performance.now() - startedAt) / 1000;
  process.stderr.write(`${counted(size.numTexts, "text")} in ${seconds.toFixed(1)} s\n`);
  return 0;
}

function sequenceClassifier(model: Model): SequenceClassifier {
  if (model.task === "sequence-classification") return model;
  throw new LockstepError("E_USAGE", {
    command: "classify",
    problem: `a ${model.task} model (${model.modelType}) has no classes`,
  });
}

/** @throws E_USAGE */
function checkTop({ top }: Request, { problemType }: SequenceClassifier): void {
  if (problemType !== "regression" || !Number.isFinite(top)) return;
  throw new LockstepError("E_USAGE", {
    command: "classify",
    problem: "--top is of classes, and the model is a regression",
  });
}

async function* encodeAll(
  { texts }: Request,
  tokenizer: Tokenizer,
  { maxPositions, vocabSize }: SequenceClassifier,
): AsyncGenerator<EncodedText> {
  for await (const each of texts()) {
    const encoded = await tokenizer.encodePair(each.text, each.pair, maxPositions);
    if (encoded.ids.length === 0) {
      const problem = "it has no tokens";
      throw new LockstepError("E_TEXT_UNUSABLE", { place: each.place, problem });
    }
    checkVocabulary(encoded.ids, { tokenizer, vocabSize, document: each.place });
    yield { ...each, ...encoded };
  }
}

/** @throws E_DATASET_EMPTY for a file without texts */
async function measure(request: Request, tokenizer: Tokenizer, model: SequenceClassifier) {
  let [numTexts, longest] = [0, 0];
  for await (const { ids, truncatedTokens, place } of encodeAll(request, tokenizer, model)) {
    numTexts++;
    longest = Math.max(longest, ids.length);
    if (truncatedTokens === 0) continue;
    process.stderr.write(
      `warning: ${printable(place)}: ${counted(truncatedTokens, "token")} ${truncatedTokens === 1 ? "is" : "are"} cut off, the model has ${model.maxPositions} positions\n`,
    );
  }
  if (numTexts > 0) return { numTexts, longest };
  throw new LockstepError("E_USAGE", { command: "classify", problem: "the file holds no text" });
}

async function* inChunks(texts: AsyncIterable<EncodedText>): AsyncGenerator<EncodedText[]> {
  let chunk: EncodedText[] = [];
  for await (const text of texts) {
    chunk.push(text);
    if (chunk.length < chunkTexts) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}

/** In the order of the texts; computed by length, so that little is padding. */
function logitsOf(classifier: TextClassifier, texts: readonly EncodedText[]): Float32Array[] {
  const order = texts
    .map((text, index) => ({ text, index }))
    .sort((a, b) => a.text.ids.length - b.text.ids.length);
  const logits: Float32Array[] = [];
  const computed = classifier.logits(order.map(({ text }) => text));
  for (const [position, { index }] of order.entries()) {
    logits[index] = computed[position] ?? new Float32Array(0);
  }
  return logits;
}

function jsonLine(request: Request, text: EncodedText, scores: readonly ClassScore[]): string {
  const line = {
    ...(request.hasPlaces ? { place: text.place } : {}),
    text: text.text,
    ...(text.pair === null ? {} : { text_pair: text.pair }),
    ...(text.truncatedTokens === 0 ? {} : { truncated_tokens: text.truncatedTokens }),
    scores,
  };
  return `${JSON.stringify(line)}\n`;
}

const probability = (score: number): string => score.toFixed(4);

function lines(
  { text, pair }: EncodedText,
  scores: readonly ClassScore[],
  figure: (score: number) => string,
): string {
  const columns = Math.max(...scores.map(({ label }) => printable(label).length));
  return [
    `> ${printable(text)}${pair === null ? "" : `\n> ${printable(pair)}`}`,
    ...scores.map(({ label, score }) => `  ${printable(label).padEnd(columns)}  ${figure(score)}`),
    "",
    "",
  ].join("\n");
}

const ownOptions = {
  text: { type: "string", multiple: true },
  "text-pair": { type: "string", multiple: true },
  file: { type: "string" },
  "text-column": { type: "string" },
  "pair-column": { type: "string" },
  top: { type: "string" },
} as const;

/** @throws E_USAGE */
function parse(args: string[]): Request {
  const fail = usageOf("classify");
  const { request, values } = parseModelArguments(args, ownOptions, fail);
  const { text = [], "text-pair": pairs = [], file } = values;
  const { "text-column": textColumn, "pair-column": pairColumn } = values;
  const top = values.top === undefined ? Number.POSITIVE_INFINITY : Number(values.top);
  if (values.top !== undefined && !(Number.isSafeInteger(top) && top > 0)) {
    return fail(`--top ${values.top} is not a positive whole number`);
  }
  const common = { ...request, top };
  if (file !== undefined) {
    if (text.length + pairs.length > 0) return fail("it takes --text or --file, not both");
    const columns = { text: textColumn, pair: pairColumn };
    return { ...common, texts: () => readTexts(expandHome(file), columns), hasPlaces: true };
  }
  if (text.length === 0) return fail("it needs --text TEXT or --file FILE");
  if (textColumn !== undefined || pairColumn !== undefined) {
    return fail("--text-column and --pair-column are of a --file");
  }
  if (pairs.length > 0 && pairs.length !== text.length) {
    return fail(`there are ${text.length} --text and ${pairs.length} --text-pair`);
  }
  const given = text.map((each, i) => ({
    place: `--text ${i + 1}`,
    text: each,
    pair: pairs[i] ?? null,
  }));
  return { ...common, texts: () => given, hasPlaces: false };
}
