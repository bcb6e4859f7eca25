import { LockstepError } from "#lib/core/errors/index";
import type { BadExamples } from "./bad-examples.js";
import {
  countSupervised,
  type LearntTokens,
  markTokens,
  refuseBlankCompletion,
  type RenderedExample,
  renderCompletion,
  renderConversation,
} from "./encode-example.js";
import { ContentNumbers } from "./content-numbers.js";
import { charactersOf } from "./example-size.js";
import { asWords, checkProducts, ExampleWeights, pairWithWeights } from "./example-weights.js";
import { documentTokens } from "./document-tokens.js";
import { contentOf, type PlacedExample } from "./examples.js";
import type { Example, LabelledExample, PairExample } from "./formats/index.js";
import { refuseHalfCharacters } from "./half-characters.js";
import { NumberList } from "./number-list.js";
import type { LabelReading } from "./label-reading.js";
import type { DataObserver } from "./observer.js";
import type { TokenStore } from "./token-store.js";
import type { PairTokens, Tokenizer } from "./tokenizer.js";
import { checkVocabulary } from "./vocabulary.js";

/**
 * Text that is tokenised at once: enough to keep the cores busy. An encoding takes about 100 times the
 * bytes of its text, outside of what the garbage collector counts: 2^20 made 490 MB of 30 MB of short
 * examples, 2^18 makes 300 MB in the same time.
 */
const batchCharacters = 2 ** 18;

interface EncodeSettings {
  readonly tokenizer: Tokenizer;
  /** Tokens of the model's vocabulary. */
  readonly vocabSize: number;
  /** Examples are cut to it when rows are made of them. */
  readonly sequenceLength: number;
  readonly badExamples: BadExamples;
  readonly labels: LabelReading;
  readonly onProgress?: (numCharacters: number) => void;
  readonly observer?: DataObserver;
}

/**
 * Tokenises examples one batch after another into a store, and keeps where each lies. A text is stored
 * as a document, with what begins and ends it.
 */
export class ExampleEncoder {
  readonly #store: TokenStore;
  readonly #settings: EncodeSettings;
  #waiting: (PlacedExample & { readonly content: number })[] = [];
  #waitingCharacters = 0;
  #contents = new ContentNumbers();
  readonly starts = NumberList.ofFloat64();
  readonly lengths = NumberList.ofInt32();
  readonly supervised = NumberList.ofInt32();
  /** Numbers of the contents: the same where an example is the copy of another. */
  readonly contents = NumberList.ofInt32();
  /** Of labelled examples: their labels' numbers, and how many tokens were cut off them. */
  readonly labels = NumberList.ofInt32();
  readonly cutTokens = NumberList.ofInt32();
  /** Of pairs of answers: tokens of the chosen sequence, which the rejected one follows, and their margins. */
  readonly chosenLengths = NumberList.ofInt32();
  readonly margins = NumberList.ofFloat64();
  /** Pairs that come to the same tokens: how many, and the place of the first. */
  readonly equalPairs = { count: 0, first: "" };
  /** Pairs that say a margin. */
  numMargins = 0;
  readonly weights = new ExampleWeights();
  /** Whether examples are pairs of texts. */
  hasPairs = false;
  /** Decided by the first example: a data set is labelled, or of pairs of answers, as a whole. */
  #kind: DataKind | undefined;
  numTexts = 0;
  /** Examples that the chat template renders. */
  numConversations = 0;
  /** Examples that were added. */
  numExamples = 0;
  /** Of them, those that turned out to be bad examples. */
  numRejected = 0;
  numBytes = 0;
  numCharacters = 0;
  seconds = 0;

  constructor(store: TokenStore, settings: EncodeSettings) {
    this.#store = store;
    this.#settings = settings;
  }

  get numContents(): number {
    return this.#contents.size;
  }

  /** Gives back the memory of the table that numbers contents; nothing may be added after. */
  releaseContents(): void {
    this.#contents = new ContentNumbers();
  }

  /** The only example so far, while it is not yet tokenised. */
  get lone(): PlacedExample | undefined {
    return this.numExamples === 1 ? this.#waiting[0] : undefined;
  }

  /** Forgets the examples that are not yet tokenised. */
  dropWaiting(): void {
    this.numExamples -= this.#waiting.length;
    this.#waiting = [];
    this.#waitingCharacters = 0;
  }

  /** Whether what was added are texts with labels. */
  get isLabelled(): boolean {
    return this.#kind === "labelled";
  }

  /** Whether what was added are pairs of answers. */
  get isPaired(): boolean {
    return this.#kind === "pair";
  }

  async add(placed: PlacedExample): Promise<void> {
    let content: number;
    try {
      this.#checkKind(placed);
      content = this.#contents.numberOf(contentOf(placed));
    } catch (error) {
      this.numExamples++;
      this.#reject(error);
      return;
    }
    // A batch goes once the next example is there, so that a lone one is always still waiting.
    if (this.#waitingCharacters >= batchCharacters) await this.flush();
    this.#waiting.push({ ...placed, content });
    this.#waitingCharacters += charactersOf(placed);
    this.numExamples++;
  }

  /** @throws E_TOKEN_OUT_OF_VOCABULARY, and bad examples where they end the run */
  async flush(): Promise<void> {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#waitingCharacters = 0;
    const startedMs = performance.now();
    // Texts of one batch are encoded together, the order of examples stays.
    const texts = batch.flatMap(({ example }) => (example.kind === "text" ? [example.text] : []));
    const encodedTexts = (
      await this.#settings.tokenizer.encodeMany(texts, {
        onProgress: (done) => this.#settings.onProgress?.(this.numCharacters + done),
      })
    ).values();
    const rendered = batch.map((placed) => this.#render(placed));
    const marked = (await this.#settings.tokenizer.encodeMarked(rendered.flat())).values();
    const pairs = await Promise.all(batch.map(({ example }) => this.#encodePair(example)));
    for (const [i, placed] of batch.entries()) {
      const { content } = placed;
      const pair = pairs[i];
      if (placed.example.kind === "labelled" && pair !== undefined) {
        this.#addLabelled(placed.example, placed, pair, content);
        continue;
      }
      if (placed.example.kind === "text") {
        const ids = encodedTexts.next().value ?? new Int32Array(0);
        try {
          this.#addText(ids, placed, content);
        } catch (error) {
          this.#reject(error);
          continue;
        }
        this.numTexts++;
        this.numBytes += Buffer.byteLength(placed.example.text);
        this.numCharacters += placed.example.text.length;
        continue;
      }
      if (placed.example.kind === "pair") {
        if (placed.example.chosen.kind === "conversation") this.numConversations++;
        const sides = (rendered[i] ?? []).map((side) => ({
          side,
          encoded: marked.next().value ?? { ids: new Int32Array(0), spans: [] },
        }));
        try {
          const [chosen, rejected] = sides.map(({ side, encoded }) => {
            this.numBytes += Buffer.byteLength(side.text);
            this.numCharacters += side.text.length;
            const { tokens, weights } = markTokens(side, encoded, this.#settings.tokenizer);
            if (weights !== undefined) throw pairWithWeights(placed);
            return tokens;
          });
          if (chosen === undefined || rejected === undefined) continue;
          this.#addPair(placed.example, placed, [chosen, rejected], content);
        } catch (error) {
          this.#reject(error);
        }
        continue;
      }
      if (placed.example.kind === "conversation") this.numConversations++;
      for (const each of rendered[i] ?? []) {
        const encoded = marked.next().value ?? { ids: new Int32Array(0), spans: [] };
        this.numBytes += Buffer.byteLength(each.text);
        this.numCharacters += each.text.length;
        try {
          this.#addMarked(markTokens(each, encoded, this.#settings.tokenizer), placed, content);
        } catch (error) {
          this.#reject(error);
        }
      }
    }
    this.seconds += (performance.now() - startedMs) / 1000;
    this.#settings.onProgress?.(this.numCharacters);
  }

  #render({ place, example }: PlacedExample): RenderedExample[] {
    try {
      if (example.kind !== "pair") return this.#rendered(example, place);
      const [chosen, rejected] = [example.chosen, example.rejected].map((side) =>
        this.#rendered(side, place),
      );
      if (chosen?.length !== 1 || rejected?.length !== 1) {
        throw new LockstepError("E_DATA_ROW_FORMAT", {
          ...{ place, format: "preference" },
          problem:
            "the chat template writes its answers in another way once more follows, so that no one text has them",
        });
      }
      return [...chosen, ...rejected];
    } catch (error) {
      this.#reject(error);
      return [];
    }
  }

  #rendered(example: Exclude<Example, PairExample>, place: string): RenderedExample[] {
    switch (example.kind) {
      case "completion":
        refuseBlankCompletion(example, this.#settings.tokenizer, place);
        return [{ ...renderCompletion(example), place, kind: example.kind }];
      case "conversation":
        return renderConversation(example, this.#settings.tokenizer, place).map((marked) => {
          // A template may cut a text.
          refuseHalfCharacters(marked.text, place);
          return { ...marked, place, kind: example.kind };
        });
      case "text":
      case "labelled":
        return [];
    }
  }

  #checkKind({ place, example }: PlacedExample): void {
    const kind = kindOf(example);
    const before = (this.#kind ??= kind);
    if (before === kind) return;
    const isOfPairs = before === "pair" || kind === "pair";
    const what = isOfPairs ? "a chosen and a rejected answer" : "a label";
    const lacks = isOfPairs ? "has no chosen and rejected answer" : "has no label";
    const isMore = kind === "pair" || (kind === "labelled" && !isOfPairs);
    throw new LockstepError("E_DATA_ROW_FORMAT", {
      place,
      format: isOfPairs ? "preference" : "classification",
      problem: isMore
        ? `it has ${what}, rows before it have none`
        : `it ${lacks}, rows before it have`,
    });
  }

  async #encodePair(example: PlacedExample["example"]): Promise<PairTokens | undefined> {
    if (example.kind !== "labelled") return undefined;
    const { tokenizer, sequenceLength } = this.#settings;
    return tokenizer.encodePair(example.text, example.pair, sequenceLength);
  }

  #addLabelled(
    { text, pair, label }: LabelledExample,
    placed: PlacedExample,
    { ids, typeIds, truncatedTokens }: PairTokens,
    content: number,
  ): void {
    this.#checkVocabulary(ids, placed.place);
    const start = this.#store.append(ids.map((id, i) => (typeIds[i] === 1 ? ~id : id)));
    this.#keep(placed, start, ids.length, 1, content, truncatedTokens);
    this.labels.push(this.#settings.labels.table.numberOf(label, placed.place));
    this.cutTokens.push(truncatedTokens);
    if (pair !== null) this.hasPairs = true;
    for (const each of pair === null ? [text] : [text, pair]) {
      this.numBytes += Buffer.byteLength(each);
      this.numCharacters += each.length;
    }
  }

  /** Both sequences are cut to the row's length, and lie one behind the other. */
  #addPair(
    { margin }: PairExample,
    placed: PlacedExample,
    sides: readonly [chosen: Int32Array, rejected: Int32Array],
    content: number,
  ): void {
    const { sequenceLength } = this.#settings;
    const { place } = placed;
    for (const tokens of sides) {
      this.#checkVocabulary(
        tokens.map((value) => (value < 0 ? ~value : value)),
        place,
      );
      if (countSupervised(tokens, sequenceLength) > 0) continue;
      const facts = { place, numTokens: tokens.length, maxLength: sequenceLength };
      throw new LockstepError("E_DATA_NOTHING_SUPERVISED", facts);
    }
    const [chosen, rejected] = sides.map((tokens) => tokens.subarray(0, sequenceLength)) as [
      Int32Array,
      Int32Array,
    ];
    const length = chosen.length + rejected.length;
    const numCut = sides[0].length + sides[1].length - length;
    const start = this.#store.append(chosen);
    this.#store.append(rejected);
    this.#keep(placed, start, length, 1, content, numCut);
    this.cutTokens.push(numCut);
    this.chosenLengths.push(chosen.length);
    this.margins.push(margin ?? 0);
    if (margin !== null) this.numMargins++;
    const isEqual =
      chosen.length === rejected.length && chosen.every((value, i) => value === rejected[i]);
    if (isEqual && this.equalPairs.count++ === 0) this.equalPairs.first = place;
  }

  #addText(ids: Int32Array, placed: PlacedExample, content: number): void {
    const { tokenizer, sequenceLength } = this.#settings;
    const tokens = documentTokens(ids, placed.place, tokenizer);
    this.#checkVocabulary(tokens, placed.place);
    const supervised = Math.max(0, Math.min(tokens.length, sequenceLength) - 1);
    this.#keep(placed, this.#store.append(tokens), tokens.length, supervised, content);
  }

  #addMarked({ tokens, weights }: LearntTokens, placed: PlacedExample, content: number): void {
    const { sequenceLength } = this.#settings;
    const { place } = placed;
    this.#checkVocabulary(
      tokens.map((value) => (value < 0 ? ~value : value)),
      place,
    );
    const supervised = countSupervised(tokens, sequenceLength);
    if (supervised === 0) {
      const facts = { place, numTokens: tokens.length, maxLength: sequenceLength };
      throw new LockstepError("E_DATA_NOTHING_SUPERVISED", facts);
    }
    checkProducts(placed, weights);
    const start = this.#store.append(tokens);
    if (weights !== undefined) this.#store.append(asWords(weights));
    this.#keep(placed, start, tokens.length, supervised, content, 0, weights !== undefined);
  }

  #keep(
    { place, format, weight = 1 }: PlacedExample,
    start: number,
    length: number,
    supervised: number,
    content: number,
    cutTokens = 0,
    hasSpanWeights = false,
  ): void {
    this.weights.push(weight, hasSpanWeights);
    this.starts.push(start);
    this.lengths.push(length);
    this.supervised.push(supervised);
    this.contents.push(content);
    this.#settings.observer?.onExample?.({ place, format, numTokens: length + cutTokens });
  }

  /** A tokenizer of another model is no fault of the example. */
  #reject(error: unknown): void {
    const isFatal =
      error instanceof LockstepError &&
      (error.code === "E_TOKEN_OUT_OF_VOCABULARY" || error.code === "E_CHAT_TEMPLATE_MISSING");
    if (isFatal) throw error;
    this.#settings.badExamples.reject(error);
    this.numRejected++;
  }

  #checkVocabulary(ids: Int32Array, document: string): void {
    checkVocabulary(ids, { ...this.#settings, document });
  }
}

/** What a data set is of as a whole. */
type DataKind = "plain" | "labelled" | "pair";

const kindOf = ({ kind }: Example): DataKind =>
  kind === "labelled" || kind === "pair" ? kind : "plain";
