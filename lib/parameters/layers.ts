/** The number of the layer that a weight lies in; -1: it lies in none. Of more digits it is no layer's. */
export const layerOf = (name: string): number => Number(/\.(\d{1,4})\./.exec(name)?.[1] ?? -1);

/** How many layers a model of these weights has. */
export const countLayers = (weights: readonly { readonly name: string }[]): number =>
  1 + Math.max(-1, ...weights.map(({ name }) => layerOf(name)));
