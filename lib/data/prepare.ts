import { availableParallelism } from "node:os";
import { LockstepError } from "#lib/core/errors/index";
import { readDocuments } from "./datasets/index.js";
import { type Document, splitDocuments, splitLoneDocument } from "./documents.js";
import { checkSequenceLength, type PackedBlocks, packDocuments } from "./pack.js";
import type { Tokenizer } from "./tokenizer.js";

/** Where text comes from and how it is divided. */
export interface DatasetSpec {
  /** Built-in names ("sotu"), files, directories or patterns. */
  readonly train: readonly string[];
  /** Sources that only validate; where there are none, `validationFraction` of the documents does. */
  readonly validation?: readonly string[];
  /** @default 0.05 */
  readonly validationFraction?: number;
  /** Field of a JSON Lines row. @default "text" */
  readonly textField?: string;
  /** Documents that are kept of each side, evenly spread over it: sources are often in the order of time. */
  readonly maxTrainDocuments?: number;
  readonly maxValidationDocuments?: number;
}

export interface TextDataset {
  readonly train: readonly Document[];
  readonly validation: readonly Document[];
}

/** @throws E_DATASET_EMPTY, E_DATASET_SPLIT, and what {@link readDocuments} throws */
export async function loadTextDataset(
  spec: DatasetSpec,
  { seed }: { seed: number },
): Promise<TextDataset> {
  const read = async (sources: readonly string[]): Promise<Document[]> => {
    const options = spec.textField === undefined ? {} : { textField: spec.textField };
    const documents: Document[] = [];
    for (const source of sources) {
      for (const document of await readDocuments(source, options)) documents.push(document);
    }
    return documents;
  };
  const documents = await read(spec.train);
  const fraction = spec.validationFraction ?? 0.05;
  const [lone] = documents;
  const split =
    spec.validation !== undefined && spec.validation.length > 0
      ? { train: documents, validation: await read(spec.validation) }
      : documents.length === 1 && lone !== undefined
        ? splitLoneDocument(lone, { fraction })
        : splitDocuments(documents, { fraction, seed });
  if (split.train.length === 0) {
    throw new LockstepError("E_DATASET_EMPTY", { split: "train", source: spec.train.join(", ") });
  }
  if (
    split.validation.length === 0 &&
    spec.validation !== undefined &&
    spec.validation.length > 0
  ) {
    const source = spec.validation.join(", ");
    throw new LockstepError("E_DATASET_EMPTY", { split: "validation", source });
  }
  return {
    train: evenlySpread(split.train, spec.maxTrainDocuments),
    validation: evenlySpread(split.validation, spec.maxValidationDocuments),
  };
}

/** What became of one side's text. */
export interface PreparationReport {
  readonly numDocuments: number;
  readonly numBytes: number;
  /** Separators included. */
  readonly numTokens: number;
  readonly numBlocks: number;
  readonly droppedTokens: number;
  /** Targets of one pass over all blocks. */
  readonly supervisedTokens: number;
  readonly tokenizerSeconds: number;
  readonly tokenizerBytesPerSecond: number;
  /** Threads the tokenizer may have used. */
  readonly tokenizerThreads: number;
}

export interface PreparedBlocks {
  readonly blocks: PackedBlocks;
  readonly report: PreparationReport;
}

export interface PrepareOptions {
  readonly tokenizer: Tokenizer;
  readonly sequenceLength: number;
  /** The model's vocabulary and context, from its configuration. */
  readonly vocabSize: number;
  readonly maxSequenceLength: number;
  /** Names the side in messages. @default "train" */
  readonly split?: string;
  /** Blocks that are kept, evenly spread over all; the tokens of others count as dropped. */
  readonly maxBlocks?: number;
  /** 0 to 1, as tokenising goes on. */
  readonly onProgress?: (share: number) => void;
}

/**
 * Tokenises documents and packs them, a separator after each.
 *
 * @throws E_SEQUENCE_LENGTH, E_TOKEN_OUT_OF_VOCABULARY, E_DATASET_TOO_SMALL where no block comes out
 */
export async function prepareBlocks(
  documents: readonly Document[],
  options: PrepareOptions,
): Promise<PreparedBlocks> {
  const { tokenizer, sequenceLength, vocabSize, split = "train", onProgress } = options;
  checkSequenceLength(sequenceLength, options.maxSequenceLength);
  const texts = documents.map(({ text }) => text);
  const numCharacters = texts.reduce((sum, { length }) => sum + length, 0);
  const startedMs = performance.now();
  const encoded = await tokenizer.encodeMany(texts, {
    onProgress: (done) => onProgress?.(done / numCharacters),
  });
  const tokenizerSeconds = (performance.now() - startedMs) / 1000;

  const separatorTokenId = tokenizer.documentSeparatorTokenId;
  for (const [i, ids] of encoded.entries()) {
    checkVocabulary(ids, documents[i]?.id ?? "", vocabSize);
  }
  if (separatorTokenId !== null) {
    checkVocabulary([separatorTokenId], "the document separator", vocabSize);
  }
  const packed = limitBlocks(
    packDocuments(encoded, { sequenceLength, separatorTokenId }),
    options.maxBlocks,
  );
  const { numBlocks, droppedTokens } = packed;
  const numTokens = packed.tokens.length + droppedTokens;
  if (numBlocks === 0) {
    const facts = { split, numTokens, numBlocks, neededBlocks: 1, sequenceLength };
    throw new LockstepError("E_DATASET_TOO_SMALL", facts);
  }
  const numBytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  return {
    blocks: packed,
    report: {
      numDocuments: documents.length,
      numBytes,
      numTokens,
      numBlocks,
      droppedTokens,
      supervisedTokens: numBlocks * (sequenceLength - 1),
      tokenizerSeconds,
      tokenizerBytesPerSecond: numBytes / tokenizerSeconds,
      tokenizerThreads: Number(process.env.RAYON_NUM_THREADS) || availableParallelism(),
    },
  };
}

function checkVocabulary(ids: ArrayLike<number>, document: string, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const tokenId = ids[i] ?? 0;
    if (tokenId >= vocabSize) {
      throw new LockstepError("E_TOKEN_OUT_OF_VOCABULARY", { document, tokenId, vocabSize });
    }
  }
}

function limitBlocks(blocks: PackedBlocks, maxBlocks: number | undefined): PackedBlocks {
  if (maxBlocks === undefined || maxBlocks >= blocks.numBlocks) return blocks;
  const length = blocks.sequenceLength;
  const tokens = new Int32Array(maxBlocks * length);
  for (let i = 0; i < maxBlocks; i++) {
    const start = Math.floor((i * blocks.numBlocks) / maxBlocks) * length;
    tokens.set(blocks.tokens.subarray(start, start + length), i * length);
  }
  return {
    ...blocks,
    tokens,
    numBlocks: maxBlocks,
    droppedTokens: blocks.droppedTokens + blocks.tokens.length - tokens.length,
  };
}

function evenlySpread<T>(items: readonly T[], maxItems: number | undefined): readonly T[] {
  if (maxItems === undefined || maxItems >= items.length) return items;
  return items.filter(
    // Item i is the first one of a new share of maxItems equal ones.
    (_, i) =>
      i === 0 ||
      Math.floor((i * maxItems) / items.length) > Math.floor(((i - 1) * maxItems) / items.length),
  );
}
