import { promptWeightName } from "./prompt-layout.js";

/** The number of the layer that a weight lies in; -1: it lies in none. Of more digits it is no layer's. */
export const layerOf = (name: string): number => Number(/\.(\d{1,4})\./.exec(name)?.[1] ?? -1);

/** How many layers a model of these weights has. */
export const countLayers = (weights: readonly { readonly name: string }[]): number =>
  1 + Math.max(-1, ...weights.map(({ name }) => layerOf(name)));

/** The level of what is above the layers. */
export const topLevel = Number.POSITIVE_INFINITY;

/**
 * How far up a weight is: the number of its layer, -1 for embeddings, `topLevel` for what is neither. What stands in
 * place of embedded tokens is below the first layer too.
 */
export function levelOf(name: string, isEmbeddingTable: (name: string) => boolean): number {
  const layer = layerOf(name);
  if (layer >= 0) return layer;
  const isBelow =
    isEmbeddingTable(name) || name === promptWeightName || /(^|\.)embeddings\./.test(name);
  return isBelow ? -1 : topLevel;
}
