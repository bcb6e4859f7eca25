// Shape legend: B rows of a call, T tokens, D model width.
import * as tf from "@tensorflow/tfjs-core";
import type { Precision } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { Autocast } from "#lib/graph/autocast";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import "#lib/graph/lowerings/index";
import type { Program, Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { graphTensor, symbolicTensor, trace } from "#lib/graph/tracing-backend";
import { checkPositions, type Model, type Weights } from "#lib/models/index";
import { WeightVariables } from "#lib/tuning/weight-variables";

/** How the hidden states of a text become one vector. */
export type Pooling = "mean" | "cls";

export interface TextEmbedderOptions {
  readonly model: Model;
  /** A weight's values by its name, float32 in the shape of `model.weights`. */
  readonly readWeight: (name: string) => Promise<Float32Array>;
  /** Longest text, tokens. */
  readonly maxLength: number;
  /** Rows of a call. @default 8 */
  readonly batchSize?: number;
  /** @default "mean" */
  readonly pooling?: Pooling;
  /** Scales vectors to length 1. @default true */
  readonly normalize?: boolean;
  /** @default "fp32" */
  readonly precision?: Precision;
}

interface LengthProgram {
  readonly numTokens: number;
  readonly program: Program;
}

/** Shortest padded length; programs exist for it and its doublings, so padding at most doubles a row. */
const shortestLength = 16;
/** Below every norm and token count that occurs, as torch's `normalize` and sentence-transformers have it. */
const leastNorm = 1e-12;

/** Vectors of texts from a model's last hidden states, in one session of its own. */
export class TextEmbedder {
  readonly #session: Session;
  readonly #programs: readonly LengthProgram[];
  readonly #batchSize: number;

  private constructor(session: Session, programs: readonly LengthProgram[], batchSize: number) {
    this.#session = session;
    this.#programs = programs;
    this.#batchSize = batchSize;
  }

  /** @throws E_SEQUENCE_TOO_LONG where the model has fewer positions than maxLength */
  static async create(options: TextEmbedderOptions): Promise<TextEmbedder> {
    const { model, readWeight, maxLength, batchSize = 8, precision = "fp32" } = options;
    checkPositions(model, maxLength);
    const graph = new GraphBuilder();
    const autocast: Autocast = { compute: precision === "bf16" ? "bfloat16" : "float32" };
    const weights = new WeightVariables(graph, model.weights, autocast);
    const programs = trace({ graph, autocast }, () =>
      lengthsUpTo(maxLength).map((numTokens) =>
        embedProgram(graph, options, weights.lookup, batchSize, numTokens),
      ),
    );
    const session = await weights.open(graph, readWeight);
    return new TextEmbedder(session, programs, batchSize);
  }

  /**
   * @param texts token ids of each text with its special tokens, from 1 to maxLength of them
   * @returns a vector of D numbers a text
   * @throws E_SEQUENCE_TOO_LONG
   */
  embed(texts: readonly Int32Array[]): Float32Array[] {
    const vectors: Float32Array[] = [];
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
      vectors.push(...this.#run(fitting, rows));
    }
    return vectors;
  }

  #run({ numTokens, program }: LengthProgram, rows: readonly Int32Array[]): Float32Array[] {
    const size = this.#batchSize * numTokens;
    const [tokens, segments, positions] = [0, 0, 0].map(() => new Int32Array(size)) as [
      Int32Array,
      Int32Array,
      Int32Array,
    ];
    rows.forEach((row, index) => {
      const start = index * numTokens;
      tokens.set(row, start);
      segments.fill(1, start, start + row.length);
      for (let i = 0; i < row.length; i++) positions[start + i] = i;
    });
    const { vectors } = this.#session.run(program, { tokens, segments, positions });
    const width = (vectors?.length ?? 0) / this.#batchSize;
    return rows.map((_, index) =>
      (vectors as Float32Array).slice(index * width, (index + 1) * width),
    );
  }

  close(): void {
    this.#session.close();
  }
}

function lengthsUpTo(maxLength: number): readonly number[] {
  const lengths: number[] = [];
  for (let length = shortestLength; length < maxLength; length *= 2) lengths.push(length);
  return [...lengths, maxLength];
}

function embedProgram(
  graph: GraphBuilder,
  { model, pooling = "mean", normalize = true }: TextEmbedderOptions,
  weights: Weights,
  batchSize: number,
  numTokens: number,
): LengthProgram {
  const feed = (name: string): GraphTensor =>
    op.placeholder(graph, `feed/embed${numTokens}/${name}`, "int32", [batchSize, numTokens]);
  const feeds = {
    tokens: feed("tokens"),
    segments: feed("segments"),
    positions: feed("positions"),
  };
  const fed = (tensor: GraphTensor): tf.Tensor2D => symbolicTensor(tensor) as tf.Tensor2D;
  const hidden_BTD = model.hiddenStates(weights, {
    tokens: fed(feeds.tokens),
    // Padding is a segment of its own.
    segments: fed(feeds.segments),
    positions: fed(feeds.positions),
  });
  const wide_BTD = tf.cast(hidden_BTD, "float32");
  const pooled_BD =
    pooling === "mean" ? meanOver(wide_BTD, fed(feeds.segments)) : firstOf(wide_BTD);
  const vectors_BD = normalize ? toUnitLength(pooled_BD) : pooled_BD;
  return {
    numTokens,
    program: {
      name: `embed${numTokens}`,
      feeds,
      fetches: {
        vectors: op.identity(graphTensor(vectors_BD), { name: `fetch/embed${numTokens}` }),
      },
    },
  };
}

/** The mean over real tokens. */
function meanOver(hidden_BTD: tf.Tensor3D, segments_BT: tf.Tensor2D): tf.Tensor {
  const isReal_BT1 = tf.expandDims(tf.cast(segments_BT, "float32"), 2);
  const count_B1 = tf.maximum(tf.sum(isReal_BT1, 1), tf.scalar(leastNorm));
  return tf.div(tf.sum(tf.mul(hidden_BTD, isReal_BT1), 1), count_B1);
}

function firstOf(hidden_BTD: tf.Tensor3D): tf.Tensor {
  const [b, , d] = hidden_BTD.shape;
  return tf.reshape(tf.slice(hidden_BTD, [0, 0, 0], [b, 1, d]), [b, d]);
}

function toUnitLength(x_BD: tf.Tensor): tf.Tensor {
  const norm_B1 = tf.sqrt(tf.sum(tf.square(x_BD), -1, true));
  return tf.div(x_BD, tf.maximum(norm_B1, tf.scalar(leastNorm)));
}
