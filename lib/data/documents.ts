import { createHash } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";
import { RandomStream, shuffledIndices } from "#lib/core/random";

/** A unit of text that a split never divides: a speech, a file, a row. */
export interface Document {
  /** Where it came from, for messages: a file's name, and the line in a file of rows. */
  readonly id: string;
  readonly text: string;
}

/** One form of line ends, and nothing blank around the text; all else stays as it came. */
export function cleanText(text: string): string {
  return text.replace(/\r\n?/g, "\n").trim();
}

export interface DocumentSplit {
  readonly train: readonly Document[];
  readonly validation: readonly Document[];
}

/**
 * Splits by document, by a permutation that depends on (seed, number of distinct texts) only. Copies
 * of one text stay on one side, so validation never sees a text that was trained on. Both sides keep
 * the documents' order.
 *
 * @param fraction share of the distinct texts that validates, at least one where it is above 0 and
 *   there are two or more
 * @throws E_DATASET_SPLIT
 */
export function splitDocuments(
  documents: readonly Document[],
  { fraction, seed }: { fraction: number; seed: number },
): DocumentSplit {
  if (!(fraction >= 0 && fraction < 1)) throw new LockstepError("E_DATASET_SPLIT", { fraction });
  const textIndex = new Map<string, number>();
  const indices = documents.map(({ text }) => {
    const digest = createHash("sha256").update(text).digest("base64");
    const index = textIndex.get(digest) ?? textIndex.size;
    textIndex.set(digest, index);
    return index;
  });
  const numTexts = textIndex.size;
  const wanted = fraction === 0 ? 0 : Math.max(1, Math.round(numTexts * fraction));
  const order = shuffledIndices(new RandomStream(seed, "documentSplit", 0), numTexts);
  const validates = new Set(order.subarray(0, Math.min(wanted, numTexts - 1)));
  const isValidation = (_: Document, i: number): boolean => validates.has(indices[i] ?? -1);
  return {
    train: documents.filter((document, i) => !isValidation(document, i)),
    validation: documents.filter(isValidation),
  };
}

/**
 * Cuts the end off a lone document, at a line end where there is one, so that one file can be
 * trained on and validated.
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
  const cut = lineEnd > 0 ? lineEnd : wordEnd > 0 ? wordEnd : wanted;
  const parts = [text.slice(0, cut), text.slice(cut)].map(cleanText);
  const [train, validation] = parts.map((part): Document[] =>
    part === "" ? [] : [{ id, text: part }],
  );
  return { train: train ?? [], validation: validation ?? [] };
}
