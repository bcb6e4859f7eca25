/** Levenshtein distance with adjacent transposition as one edit (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(substitution, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, (beforePrevious[j - 2] ?? 0) + 1);
      }
      current.push(best);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}

/** Longest name that is compared, characters: comparing takes the product of two lengths, and no name is so long. */
const maxNameChars = 256;

/**
 * The candidate with the smallest distance, the first one of a tie; undefined without candidates, and for what is
 * too long to be the slip of a name.
 */
export function nearestName(name: string, candidates: Iterable<string>): string | undefined {
  if (name.length > maxNameChars) return undefined;
  let nearest: string | undefined;
  let nearestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    if (candidate.length > maxNameChars) continue;
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < nearestDistance) {
      nearest = candidate;
      nearestDistance = distance;
    }
  }
  return nearest;
}

/** The candidate that a slip of the hand may have meant: at most a letter in four differs, but one may. */
export function nearName(name: string, candidates: Iterable<string>): string | undefined {
  const nearest = nearestName(name, candidates);
  if (nearest === undefined) return undefined;
  const distance = editDistance(name.toLowerCase(), nearest.toLowerCase());
  return distance <= Math.max(1, name.length / 4) ? nearest : undefined;
}

/** The same, or the first candidate that has a word which begins so: `merge` for `merge-adapter`. */
export function likelyName(name: string, candidates: readonly string[]): string | undefined {
  const word = name.toLowerCase();
  const beginsSo = (candidate: string): boolean =>
    candidate
      .toLowerCase()
      .split(/[-_]/)
      .some((part) => part.startsWith(word));
  return nearName(name, candidates) ?? (word.length < 3 ? undefined : candidates.find(beginsSo));
}
