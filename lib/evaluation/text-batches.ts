// Shape legend: B rows of a call, T tokens, W numbers of a text.
import type * as tf from "@tensorflow/tfjs-core";
import type { Precision } from "#lib/core/dtype";
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
}

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

  private constructor(
    session: Session,
    programs: readonly LengthProgram[],
    { batchSize, paddingTokenId }: { batchSize: number; paddingTokenId: number },
  ) {
    this.#session = session;
    this.#programs = programs;
    this.#batchSize = batchSize;
    this.#paddingTokenId = paddingTokenId;
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
    checkPositions(model, maxLength);
    const graph = new GraphBuilder();
    const autocast: Autocast = { compute: precision === "bf16" ? "bfloat16" : "float32" };
    const packsWeights = options.packsWeights === true && canPackProducts(autocast.compute);
    const weights = new WeightVariables(graph, model.weights, autocast);
    const numParts = options.numParts ?? defaultParts();
    const tracer = { graph, autocast, packsWeights };
    const inParts = sideBySide(tracer, model, weights.lookup, numParts, compute);
    const programs = trace(tracer, () =>
      lengthsUpTo(maxLength).map((numTokens) =>
        lengthProgram(graph, [batchSize, numTokens], (inputs) => inParts(inputs)),
      ),
    );
    const session = await weights.open(graph, options.readWeight);
    return new TextBatches(session, programs, { batchSize, paddingTokenId });
  }

  /**
   * @param texts token ids of each text with its special tokens, from 1 to maxLength of them
   * @returns W numbers a text
   * @throws E_SEQUENCE_TOO_LONG
   */
  run(texts: readonly Int32Array[]): Float32Array[] {
    const results: Float32Array[] = [];
    for (let start = 0; start < texts.length; start += this.#batchSize) {
      const rows = texts.slice(start, start + this.#batchSize);
      const longest = Math.max(...rows.map((row) => row.length));
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

  #runBatch({ numTokens, program }: LengthProgram, rows: readonly Int32Array[]): Float32Array[] {
    const size = this.#batchSize * numTokens;
    const tokens = new Int32Array(size).fill(this.#paddingTokenId);
    const segments = new Int32Array(size);
    const positions = new Int32Array(size);
    rows.forEach((row, index) => {
      const start = index * numTokens;
      tokens.set(row, start);
      segments.fill(1, start, start + row.length);
      for (let i = 0; i < row.length; i++) positions[start + i] = i;
    });
    const { results } = this.#session.run(program, { tokens, segments, positions });
    const width = (results?.length ?? 0) / this.#batchSize;
    return rows.map((_, index) =>
      (results as Float32Array).slice(index * width, (index + 1) * width),
    );
  }

  close(): void {
    this.#session.close();
  }
}

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
  compute: (inputs: TextInputs) => tf.Tensor,
): LengthProgram {
  const name = `texts${numTokens}`;
  const feed = (input: string): GraphTensor =>
    op.placeholder(graph, `feed/${name}/${input}`, "int32", [batchSize, numTokens]);
  const feeds = {
    tokens: feed("tokens"),
    segments: feed("segments"),
    positions: feed("positions"),
  };
  const fed = (tensor: GraphTensor): tf.Tensor2D => symbolicTensor(tensor) as tf.Tensor2D;
  const results_BW = compute({
    tokens: fed(feeds.tokens),
    segments: fed(feeds.segments),
    positions: fed(feeds.positions),
  });
  const results = op.identity(graphTensor(results_BW), { name: `fetch/${name}` });
  return { numTokens, program: { name, feeds, fetches: { results } } };
}
