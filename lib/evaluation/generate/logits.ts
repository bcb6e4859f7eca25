// Shape legend: V vocabulary. Scores are changed in place; a removed token's score is -Infinity.

/**
 * Makes tokens that are there already less (penalty above 1) or more probable: Keskar et al. 2019
 * (CTRL), section 4.1. Each token counts once, however often it occurs.
 */
export function applyRepetitionPenalty(
  scores_V: Float32Array,
  tokens: Iterable<number>,
  penalty: number,
): void {
  if (penalty === 1) return;
  for (const token of new Set(tokens)) {
    const score = scores_V[token];
    if (score !== undefined) scores_V[token] = score < 0 ? score * penalty : score / penalty;
  }
}

export function applyTemperature(scores_V: Float32Array, temperature: number): void {
  if (temperature === 1) return;
  for (let i = 0; i < scores_V.length; i++) scores_V[i] = (scores_V[i] as number) / temperature;
}

/** Removes all but the k highest scores; scores equal to the k-th stay. */
export function applyTopK(scores_V: Float32Array, k: number): void {
  if (k >= scores_V.length) return;
  // A typed array sorts by value; the last k are the highest.
  const threshold = scores_V.slice().sort()[scores_V.length - k] as number;
  for (let i = 0; i < scores_V.length; i++) {
    if ((scores_V[i] as number) < threshold) scores_V[i] = -Infinity;
  }
}

/**
 * Removes the least probable tokens as long as what they add up to is at most 1 - p: Holtzman et al.
 * 2020, nucleus sampling. The most probable token stays.
 */
export function applyTopP(scores_V: Float32Array, p: number): void {
  if (p >= 1) return;
  const probs = softmax(scores_V);
  // Removed scores have probability 0 and are not sorted: after top-k, few are left.
  const order = Uint32Array.from(
    [...probs.keys()].filter((token) => (probs[token] as number) > 0),
  ).sort((a, b) => (scores_V[a] as number) - (scores_V[b] as number) || a - b);
  let total = 0;
  for (let i = 0; i < order.length - 1; i++) {
    const token = order[i] as number;
    total += probs[token] as number;
    if (total > 1 - p) return;
    scores_V[token] = -Infinity;
  }
}

/** Probabilities in float64; a score of -Infinity becomes exactly 0. */
export function softmax(scores_V: Float32Array): Float64Array {
  let max = -Infinity;
  for (const score of scores_V) if (score > max) max = score;
  const probs = Float64Array.from(scores_V, (score) => Math.exp(score - max));
  let total = 0;
  for (const prob of probs) total += prob;
  for (let i = 0; i < probs.length; i++) probs[i] = (probs[i] as number) / total;
  return probs;
}

/** The first of the highest scores. */
export function argMax(scores_V: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores_V.length; i++) {
    if ((scores_V[i] as number) > (scores_V[best] as number)) best = i;
  }
  return best;
}

/**
 * The token at which the running sum of the probabilities passes `uniform`, in order of the ids.
 *
 * @param uniform in [0, 1)
 */
export function drawToken(scores_V: Float32Array, uniform: number): number {
  const probs = softmax(scores_V);
  let total = 0;
  let last = 0;
  for (let token = 0; token < probs.length; token++) {
    const prob = probs[token] as number;
    if (prob === 0) continue;
    total += prob;
    last = token;
    if (uniform < total) return token;
  }
  // Rounding left the sum just under 1.
  return last;
}
