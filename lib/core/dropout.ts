/** Places of a model that drop values in training, as configurations of models name them. */
export const modelDropoutKinds = ["embeddings", "attention", "residual", "classifier"] as const;
export type ModelDropoutKind = (typeof modelDropoutKinds)[number];

/** Those of a model, and the inputs of its adapters. */
export type DropoutKind = ModelDropoutKind | "adapters";

/** Probabilities, above 0 and below 1, that a value is dropped; nothing is dropped where a kind is absent. */
export type DropoutRates = Readonly<Partial<Record<DropoutKind, number>>>;

/**
 * What a worker needs to know of what training does at random: with it and a micro-batch's coordinates masks and
 * noise follow.
 */
export interface DropoutJob {
  /** The run's, of 32 bits. */
  readonly seed: number;
  readonly rates: DropoutRates;
  /** Magnitude of NEFTune's noise on the vectors of tokens, above 0; absent: none. Batches carry lengths for it. */
  readonly noiseAlpha?: number;
}

/** Where a micro-batch stands in a run: every random number of its forward pass comes of it. */
export interface BatchCoordinates {
  /** 0-based: updates before it. */
  readonly step: number;
  /** Gradient group of the step. */
  readonly group: number;
  /** Micro-batch of the group. */
  readonly index: number;
}
