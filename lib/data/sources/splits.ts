/**
 * Which split of a data set a file belongs to, by its name: the rules of `datasets.load_dataset(DIRECTORY)`,
 * in capital letters too.
 */

export interface Division {
  /** Files by the name of their split, each in the order of their names. */
  readonly splits: ReadonlyMap<string, readonly string[]>;
  /** Whether names tell the splits; else all files are `train`. */
  readonly isNamed: boolean;
  /** Files that are in no split. */
  readonly others: readonly string[];
  /** A file whose name tells two splits. */
  readonly unclear: readonly [file: string, splits: readonly string[]] | undefined;
}

const keywords: Readonly<Record<string, readonly string[]>> = {
  train: ["train", "training"],
  validation: ["validation", "valid", "dev", "val"],
  test: ["test", "testing", "eval", "evaluation"],
};
/** What stands around a keyword: `-._ 0-9`, as in datasets. */
const around = "[-._ 0-9]";
const inFileName = expressions((word) => `^(.*${around})?${word}${around}`);
const inDirectoryName = expressions((word) => `^(.*${around})?${word}(${around}.*)?$`);

function expressions(of: (words: string) => string): readonly (readonly [string, RegExp])[] {
  return Object.entries(keywords).map(([split, words]) => [
    split,
    new RegExp(of(`(${words.join("|")})`), "i"),
  ]);
}

/** As hubs store a split of any name: data/train_sft-00000-of-00003.parquet. */
const shard = /^data\/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*$/;

/** @param files relative to the directory of the data set, with `/` */
export function divideBySplits(files: readonly string[]): Division {
  const ways: ((file: string) => readonly string[])[] = [
    (file) => shard.exec(file)?.slice(1, 2) ?? [],
    (file) => splitsOf(file.split("/").slice(0, -1), inDirectoryName),
    (file) => splitsOf(file.split("/").slice(-1), inFileName),
  ];
  for (const way of ways) {
    const splits = new Map<string, string[]>();
    const others: string[] = [];
    let unclear: Division["unclear"];
    for (const file of files) {
      const found = way(file);
      if (found.length > 1) unclear ??= [file, found];
      const [split] = found;
      if (split === undefined) others.push(file);
      else splits.set(split, [...(splits.get(split) ?? []), file]);
    }
    if (splits.size > 0) return { splits, isNamed: true, others, unclear };
  }
  const splits = new Map([["train", files]]);
  return { splits, isNamed: false, others: [], unclear: undefined };
}

function splitsOf(names: readonly string[], told: typeof inFileName): string[] {
  return told.flatMap(([split, expression]) =>
    names.some((name) => expression.test(name)) ? [split] : [],
  );
}

/** A split as `datasets` writes it: a name, and perhaps the first rows of it. */
interface SplitRequest {
  readonly name: string;
  readonly maxExamples?: number;
}

/** Reads `train` or `train[:1000]`; undefined for another slice, a share or a sum of splits. */
export function parseSplit(text: string): SplitRequest | undefined {
  const match = /^(\w+(?:\.\w+)*)(?:\[:(\d{1,15})\])?$/.exec(text.trim());
  if (match === null) return undefined;
  const [, name = "", rows] = match;
  if (rows === undefined) return { name };
  return Number(rows) > 0 ? { name, maxExamples: Number(rows) } : undefined;
}
