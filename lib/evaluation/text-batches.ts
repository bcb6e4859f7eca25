// Shape legend: B rows of a call, T tokens, W numbers of a text.
import type * as tf from "@tensorflow/tfjs-core";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { Autocast } from "#lib/graph/autocast";
import { loadBinding } from "#lib/graph/binding";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import { canPackProducts } from "#lib/graph/device-probe";
import type { Program, Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { checkPositions, type Model } from "#lib/models/index";
import { WeightVariables } from "#lib/tuning/weight-variables";
import {
  type OfHiddenStates,
  partsSideBySide,
  sideBySide,
  type TextInputs,
} from "./side-by-side.js";

export interface TextBatchOptions<M extends Model> {
  readonly model: M;
  /** A weight's values by its name, float32 in the shape of `model.weights`. */
  readonly readWeight: (name: string) => Promise<Float32Array>;
  /** Longest text, tokens. */
  readonly maxLength: number;
  /** Rows of a call. @default 8 */
  readonly batchSize?: number;
  /** @default "fp32" */
  readonly precision?: Precision;
  /**
   * Faster in bf16 where the processor can, for a copy of the weights for every padded length that
   * occurs. @default false
   */
  readonly packsWeights?: boolean;
  /**
   * Parts of a call that are computed at the same time, each with packed weights of its own.
   * @default as many as TensorFlow runs nodes side by side, at most 2; 1 on a GPU
   */
  readonly numParts?: number;
  /** What stands behind the tokens of a text. @default 0 */
  readonly paddingTokenId?: number;
  /** Whether the model is told which tokens are of the second text of a pair. @default false */
  readonly hasTokenTypes?: boolean;
}

/** Token ids of a text with its special tokens. */
export type TextTokens =
  | Int32Array
  | {
      readonly ids: Int32Array;
      /** 1 for the tokens of the second text of a pair. */
      readonly typeIds: Int32Array;
    };

interface LengthProgram {
  readonly numTokens: number;
  readonly program: Program;
}

/** Shortest padded length; programs exist for it and its doublings, so padding at most doubles a row. */
const shortestLength = 16;

/** What a model says of texts, some numbers each, in one session of its own. */
export class TextBatches {
  readonly #session: Session;
  readonly #programs: readonly LengthProgram[];
  readonly #batchSize: number;
  readonly #paddingTokenId: number;
  readonly #hasTokenTypes: boolean;

  private constructor(
    session: Session,
    programs: readonly LengthProgram[],
    options: { batchSize: number; paddingTokenId: number; hasTokenTypes: boolean },
  ) {
    this.#session = session;
    this.#programs = programs;
    this.#batchSize = options.batchSize;
    this.#paddingTokenId = options.paddingTokenId;
    this.#hasTokenTypes = options.hasTokenTypes;
  }

  /**
   * @param compute float [B, W] of a batch, or of some rows of it
   * @throws E_SEQUENCE_TOO_LONG where the model has fewer positions than maxLength
   */
  static async create<M extends Model>(
    options: TextBatchOptions<M>,
    compute: OfHiddenStates,
  ): Promise<TextBatches> {
    const { model, maxLength, batchSize = 8, precision = "fp32", paddingTokenId = 0 } = options;
    const { hasTokenTypes = false } = options;
    checkPositions(model, maxLength);
    const graph = new GraphBuilder();
    const autocast: Autocast = { compute: computeDtypes[precision] };
    const packsWeights = options.packsWeights === true && canPackProducts(autocast.compute);
    const weights = new WeightVariables(graph, model.weights, autocast);
    const numParts = options.numParts ?? defaultParts();
    const tracer = { graph, autocast, packsWeights };
    const inParts = sideBySide(tracer, model, weights.lookup, numParts, compute);
    const programs = trace(tracer, () =>
      lengthsUpTo(maxLength).map((numTokens) =>
        lengthProgram(graph, [batchSize, numTokens], hasTokenTypes, (inputs) => inParts(inputs)),
      ),
    );
    const session = await weights.open(graph, options.readWeight);
    return new TextBatches(session, programs, { batchSize, paddingTokenId, hasTokenTypes });
  }

  /**
   * @param texts tokens of each text, from 1 to maxLength of them
   * @returns W numbers a text
   * @throws E_SEQUENCE_TOO_LONG
   */
  run(texts: readonly TextTokens[]): Float32Array[] {
    const results: Float32Array[] = [];
    for (let start = 0; start < texts.length; start += this.#batchSize) {
      const rows = texts.slice(start, start + this.#batchSize);
      const longest = Math.max(...rows.map((row) => idsOf(row).length));
      const fitting = this.#programs.find(({ numTokens }) => numTokens >= longest);
      if (fitting === undefined) {
        throw new LockstepError("E_SEQUENCE_TOO_LONG", {
          sequenceLength: longest,
          maxLength: this.#programs.at(-1)?.numTokens ?? 0,
        });
      }
      results.push(...this.#runBatch(fitting, rows));
    }
    return results;
  }

  #runBatch({ numTokens, program }: LengthProgram, rows: readonly TextTokens[]): Float32Array[] {
    const size = this.#batchSize * numTokens;
    const tokens = new Int32Array(size).fill(this.#paddingTokenId);
    const segments = new Int32Array(size);
    const positions = new Int32Array(size);
    const tokenTypes = this.#hasTokenTypes ? new Int32Array(size) : undefined;
    rows.forEach((row, index) => {
      const start = index * numTokens;
      const ids = idsOf(row);
      tokens.set(ids, start);
      segments.fill(1, start, start + ids.length);
      for (let i = 0; i < ids.length; i++) positions[start + i] = i;
      if (!(row instanceof Int32Array)) tokenTypes?.set(row.typeIds, start);
    });
    const feeds = { tokens, segments, positions, ...(tokenTypes && { tokenTypes }) };
    const { results } = this.#session.run(program, feeds);
    const width = (results?.length ?? 0) / this.#batchSize;
    return rows.map((_, index) =>
      (results as Float32Array).slice(index * width, (index + 1) * width),
    );
  }

  close(): void {
    this.#session.close();
  }
}

const idsOf = (text: TextTokens): Int32Array => (text instanceof Int32Array ? text : text.ids);
const defaultParts = (): number =>
  loadBinding().isUsingGpuDevice() ? 1 : partsSideBySide(process.env);

function lengthsUpTo(maxLength: number): readonly number[] {
  const lengths: number[] = [];
  for (let length = shortestLength; length < maxLength; length *= 2) lengths.push(length);
  return [...lengths, maxLength];
}

function lengthProgram(
  graph: GraphBuilder,
  [batchSize, numTokens]: readonly [number, number],
  hasTokenTypes: boolean,
  compute: (inputs: TextInputs) => tf.Tensor,
): LengthProgram {
  const name = `texts${numTokens}`;
  const feed = (input: string): GraphTensor =>
    op.placeholder(graph, `feed/${name}/${input}`, "int32", [batchSize, numTokens]);
  const feeds = {
    tokens: feed("tokens"),
    segments: feed("segments"),
    positions: feed("positions"),
    ...(hasTokenTypes ? { tokenTypes: feed("tokenTypes") } : {}),
  };
  const fed = (tensor: GraphTensor): tf.Tensor2D => symbolicTensor(tensor) as tf.Tensor2D;
  const results_BW = compute({
    tokens: fed(feeds.tokens),
    segments: fed(feeds.segments),
    positions: fed(feeds.positions),
    ...(feeds.tokenTypes === undefined ? {} : { tokenTypes: fed(feeds.tokenTypes) }),
  });
  const results = op.identity(graphTensor(results_BW), { name: `fetch/${name}` });
  return { numTokens, program: { name, feeds, fetches: { results } } };
}
