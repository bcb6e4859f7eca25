import type { ModelDropoutKind } from "#lib/core/dropout";

/**
 * What is true of every model of a type, whatever its size, for those who load no tfjs: what reads a
 * checkpoint, makes a classifier or an adapter of it, or lays out rows for it. A model's own folder makes
 * its arithmetic from the same facts.
 */
export interface ModelFacts {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** transformers' name of it, as in `LlamaForCausalLM`. */
  readonly className: string;
  /** Whether a token sees those behind it, so that it predicts no next one. */
  readonly isEncoder: boolean;
  /** Begins the names of the base model's weights, with its dot; some checkpoints leave it out. */
  readonly basePrefix: string;
  /** What may come behind the prefix: first parts of the names. */
  readonly baseParts: readonly string[];
  /** Weights under the prefix that no head here uses begin so. */
  readonly unusedPrefix?: string;
  /** The weight that holds a row a token; a tied head is this one. */
  readonly tokenEmbedding: string;
  /** Whether what a token becomes is the square root of the width times its row. */
  readonly scalesTokens?: true;
  /** Last parts of the names of modules that are tables of embeddings. */
  readonly embeddingModules: readonly string[];
  /** Whether the output head is the token embedding where config.json does not say. */
  readonly tiesHead: boolean;
  /** Keys of config.json by what they hold; where several do, the first that is there counts. */
  readonly keys: Readonly<Record<"width" | "layers" | "heads" | "positions", readonly string[]>>;
  /** What holds where config.json says nothing; undefined: it has to. */
  readonly defaults: {
    readonly width?: number;
    /** Positions that it was made for; of a table of positions, its rows. */
    readonly positions: number;
    /** `pad_token_id`. */
    readonly padTokenId: number | null;
  };
  /** Whether positions are rows of a table that begin behind that of the padding token. */
  readonly positionsFollowPadding: boolean;
  /** Whether it tells the texts of a pair apart by token types. */
  readonly usesTokenTypes: boolean;
  readonly classifier: ClassifierHead;
  /**
   * Where AdapterHub's library has the bottleneck adapters of a layer, with * for its number; undefined: it does not
   * have the type.
   */
  readonly bottlenecks?: Readonly<Record<"attention" | "feedForward", string>>;
  /** Where training drops values, in transformers' code. */
  readonly dropouts: Readonly<Partial<Record<ModelDropoutKind, DropoutFact>>>;
  /** What an adapter is added to where nobody names modules, by peft; empty where peft has none. */
  readonly adapterTargets: readonly string[];
  /** Linear maps whose names begin so lie as [inputs, outputs]; undefined: all are [outputs, inputs]. */
  readonly inputMajorPrefix?: string;
}

/** From where a rate comes. */
interface DropoutFact {
  /** Keys of config.json; the first that is there and not null counts. */
  readonly keys: readonly string[];
  /** What holds where none is. */
  readonly rate: number;
}

/** Modules of a head for sequence classification. */
interface ClassifierHead {
  /** Between the base model and the scores, [width, width] with biases. */
  readonly dense: readonly string[];
  /** Gives a score a label. */
  readonly output: string;
  readonly outputHasBias: boolean;
}

/** Keys that most types have. */
export const usualKeys: ModelFacts["keys"] = {
  width: ["hidden_size"],
  layers: ["num_hidden_layers"],
  heads: ["num_attention_heads"],
  positions: ["max_position_embeddings"],
};
