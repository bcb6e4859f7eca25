import { bytesPerElement, computeDtypes, type Precision } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { hasRoomForTwo } from "#lib/core/machine-memory";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder } from "#lib/graph/builder";
import { canPackProducts } from "#lib/graph/device-probe";
import type { Session } from "#lib/graph/session";
import { numElements } from "#lib/graph/tf-ops";
import { type CausalLanguageModel, checkPositions } from "#lib/models/index";
import { buildDecodePrograms, promptChunkLength } from "#lib/tuning/decode-programs";
import { Decoder } from "#lib/tuning/decoder";
import { WeightVariables } from "#lib/tuning/weight-variables";
import { takesArgMax, TokenChooser } from "./choose.js";
import type { Continuation } from "./continuation.js";
import type { GenerationOptions } from "./options.js";
import { firstStop, settledLength } from "./stop-strings.js";

interface GeneratorOptions {
  readonly model: CausalLanguageModel;
  /** A weight's values by its name, float32 in the shape of `model.weights`. */
  readonly readWeight: (name: string) => Promise<Float32Array>;
  /** Rows that are continued together. @default 1 */
  readonly batchSize?: number;
  /** Longest prompt plus continuation, tokens. */
  readonly maxLength: number;
  /** @default "fp32" */
  readonly precision?: Precision;
  /** Tokens of a prompt that one call takes. @default promptChunkLength */
  readonly chunkLength?: number;
}

interface TextHooks {
  /** Text of tokens; needed for stop strings and for `onText`. */
  readonly decode?: (tokens: Int32Array) => Promise<string>;
  /** Gets a row's text piece by piece, as soon as nothing can change it. */
  readonly onText?: (row: number, piece: string) => void;
}

/** Continues prompts with a causal language model in one session of its own. */
export class Generator {
  readonly #session: Session;
  readonly #decoder: Decoder;

  private constructor(session: Session, decoder: Decoder) {
    this.#session = session;
    this.#decoder = decoder;
  }

  /** @throws E_SEQUENCE_TOO_LONG where the model has fewer positions than maxLength */
  static async create(options: GeneratorOptions): Promise<Generator> {
    const { model, readWeight, batchSize = 1, maxLength, precision = "fp32" } = options;
    const { chunkLength = promptChunkLength } = options;
    checkPositions(model, maxLength);
    const graph = new GraphBuilder();
    const autocast: Autocast = { compute: computeDtypes[precision] };
    const weights = new WeightVariables(graph, model.weights, autocast, { outputMajor: true });
    const numWeights = model.weights.reduce((sum, { shape }) => sum + numElements(shape), 0);
    const weightBytes = numWeights * bytesPerElement[autocast.compute];
    const packsWeights = hasRoomForTwo(weightBytes) && canPackProducts(autocast.compute);
    const programs = buildDecodePrograms(
      { graph, autocast, packsWeights },
      model,
      () => weights.lookup,
      {
        batchSize,
        maxLength,
        chunkLength,
      },
    );
    const session = await weights.open(graph, readWeight);
    return new Generator(session, new Decoder(session, programs));
  }

  /**
   * Continues prompts of any lengths, batchSize at a time. A row's continuation does not depend on
   * the other rows.
   *
   * @param prompts of at least one token each
   * @throws E_GENERATION_TOO_LONG
   */
  async generate(
    prompts: readonly Int32Array[],
    options: GenerationOptions,
    hooks: TextHooks = {},
  ): Promise<Continuation[]> {
    const { maxLength, batchSize } = this.#decoder;
    for (const prompt of prompts) {
      if (prompt.length === 0 || prompt.length + options.maxNewTokens > maxLength) {
        throw new LockstepError("E_GENERATION_TOO_LONG", {
          promptTokens: prompt.length,
          maxNewTokens: options.maxNewTokens,
          maxLength,
        });
      }
    }
    const rows = prompts.map((prompt, index) => new Row(index, prompt, options, hooks));
    for (let start = 0; start < rows.length; start += batchSize) {
      await this.#continue(rows.slice(start, start + batchSize), options);
    }
    return rows.map((row) => row.result());
  }

  async #continue(rows: readonly Row[], options: GenerationOptions): Promise<void> {
    const wanted = takesArgMax(options) ? "token" : "logits";
    const prompts = rows.map((row) => row.prompt);
    let outputs =
      wanted === "token"
        ? this.#decoder.start(prompts, "token")
        : this.#decoder.start(prompts, "logits");
    for (;;) {
      for (const [index, row] of rows.entries()) {
        if (!row.isFinished) await row.take(outputs[index] as number | Float32Array);
      }
      if (rows.every((row) => row.isFinished)) return;
      const next = Int32Array.from(rows, (row) => (row.isFinished ? -1 : row.lastToken));
      outputs =
        wanted === "token"
          ? this.#decoder.append(next, "token")
          : this.#decoder.append(next, "logits");
    }
  }

  close(): void {
    this.#session.close();
  }
}

/** One prompt on its way. */
class Row {
  readonly prompt: Int32Array;
  readonly #index: number;
  readonly #options: GenerationOptions;
  readonly #hooks: TextHooks;
  readonly #chooser: TokenChooser;
  readonly #tokens: number[] = [];
  #text: string | undefined;
  #numShown = 0;
  #finish: Continuation["finish"] | undefined;

  constructor(index: number, prompt: Int32Array, options: GenerationOptions, hooks: TextHooks) {
    this.#index = index;
    this.prompt = prompt;
    this.#options = options;
    this.#hooks = hooks;
    this.#chooser = new TokenChooser(options, index);
  }

  get isFinished(): boolean {
    return this.#finish !== undefined;
  }

  get lastToken(): number {
    return this.#tokens.at(-1) as number;
  }

  /** @param output the most probable token, or the scores to choose by */
  async take(output: number | Float32Array): Promise<void> {
    const token =
      typeof output === "number"
        ? output
        : this.#chooser.choose(output, [...this.prompt, ...this.#tokens]);
    if (this.#options.endTokenIds.includes(token)) {
      this.#finish = "end-token";
    } else {
      this.#tokens.push(token);
      if (this.#tokens.length === this.#options.maxNewTokens) this.#finish = "length";
    }
    await this.#readText();
  }

  async #readText(): Promise<void> {
    const { decode, onText } = this.#hooks;
    const { stopStrings } = this.#options;
    const isNeeded = this.isFinished || onText !== undefined || stopStrings.length > 0;
    if (decode === undefined || !isNeeded) return;
    const text = await decode(Int32Array.from(this.#tokens));
    const stop = firstStop(text, stopStrings);
    if (stop !== undefined) this.#finish = "stop-string";
    this.#text = stop === undefined ? text : text.slice(0, stop);
    const shown = this.isFinished ? this.#text.length : settledLength(text, stopStrings);
    if (shown > this.#numShown) {
      onText?.(this.#index, this.#text.slice(this.#numShown, shown));
      this.#numShown = shown;
    }
  }

  result(): Continuation {
    return {
      tokens: Int32Array.from(this.#tokens),
      ...(this.#text === undefined ? {} : { text: this.#text }),
      finish: this.#finish ?? "length",
    };
  }
}
