import { LockstepError } from "#lib/core/errors/index";
import { RandomStream, shuffledIndices } from "#lib/core/random";

/** A unit of text that a split never divides: a speech, a file, an example. */
export interface Document {
  /** Where it came from, for messages: a file's name, and the line in a file of examples. */
  readonly id: string;
  readonly text: string;
}

/** A byte order mark inside a file is no blank, as `trim` has it. */
export const isBlank = (text: string): boolean => !/\P{White_Space}/u.test(text);

interface DocumentSplit {
  readonly train: readonly Document[];
  readonly validation: readonly Document[];
}

/** @throws E_DATASET_SPLIT unless it is a share below 1 or a number of examples */
export function checkSplit(fraction: number): void {
  if (fraction >= 0 && (fraction < 1 || Number.isSafeInteger(fraction))) return;
  throw new LockstepError("E_DATASET_SPLIT", { fraction });
}

/**
 * Which of some contents validate: a permutation that depends on (seed, number of contents) only.
 * Examples of one content are on one side, so validation never sees a text that was trained on.
 *
 * @param fraction share of the contents that validates, at least one where it is above 0 and there are
 *   two or more; from 1 on a number of contents, of which one at least is left to train on
 */
export function splitContents(
  numContents: number,
  { fraction, seed }: { fraction: number; seed: number },
): ReadonlySet<number> {
  const share = fraction < 1 ? Math.round(numContents * fraction) : fraction;
  const wanted = fraction === 0 ? 0 : Math.max(1, share);
  const order = shuffledIndices(new RandomStream(seed, "documentSplit", 0), numContents);
  return new Set(order.subarray(0, Math.max(0, Math.min(wanted, numContents - 1))));
}

/**
 * Cuts the end off a lone document, behind a line end where there is one, so that one file can be
 * trained on and validated. Both parts together are the text; one of which a part would be blank stays whole.
 */
export function splitLoneDocument(
  { id, text }: Document,
  { fraction }: { fraction: number },
): DocumentSplit {
  if (!(fraction >= 0 && fraction < 1)) throw new LockstepError("E_DATASET_SPLIT", { fraction });
  if (fraction === 0) return { train: [{ id, text }], validation: [] };
  const wanted = Math.floor(text.length * (1 - fraction));
  const lineEnd = text.lastIndexOf("\n", wanted);
  const wordEnd = text.lastIndexOf(" ", wanted);
  // A character of two units is not cut.
  const unit = text.charCodeAt(wanted);
  const characterEnd = unit >= 0xdc00 && unit < 0xe000 ? wanted - 1 : wanted;
  const cut = lineEnd > 0 ? lineEnd + 1 : wordEnd > 0 ? wordEnd : characterEnd;
  const [head, tail] = [text.slice(0, cut), text.slice(cut)];
  if (isBlank(head) || isBlank(tail)) return { train: [{ id, text }], validation: [] };
  return { train: [{ id, text: head }], validation: [{ id, text: tail }] };
}
