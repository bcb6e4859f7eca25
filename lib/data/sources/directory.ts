import { basename, dirname, extname, join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { readSubsets, type Subset } from "./card.js";
import { pathMatcher } from "./glob.js";
import { type Division, divideBySplits } from "./splits.js";
import type { SourceFiles, SourceRequest } from "./request.js";
import { filesBelow } from "./walk.js";

/** Files beside the data of a data set, as `datasets` leaves them out. */
const besides = [
  ...["README.md", "config.json", "dataset_info.json", "dataset_infos.json"],
  ...["dataset_dict.json", "dummy_data.zip"],
];
const pages = /^(readme|licen[cs]e|notice|citation|changelog|requirements)\b[^/]*\.txt$/i;
/** Endings of data that is not read, so that nobody takes it for read. */
const otherData =
  /\.(arrow|feather|orc|avro|xlsx?|xml|ya?ml|db|sqlite3?|pkl|npz|tar|zip|zst|xz|bz2|gz)$/i;
/** Splits that a purpose takes, the first one that there is. */
const splitsFor: Readonly<Record<SourceRequest["purpose"], readonly string[]>> = {
  train: ["train"],
  validation: ["validation", "test"],
};

/**
 * The files of a directory that serve a purpose: those of its split, as `datasets.load_dataset` finds
 * them. What it does beyond all files of the directory is told in the notes.
 *
 * @param isData whether a file's name says that it is read
 * @throws E_DATASET_DIRECTORY
 */
export async function directoryFiles(
  request: SourceRequest,
  isData: (name: string) => boolean,
): Promise<SourceFiles> {
  const { path: directory, purpose } = request;
  const fail = (problem: string): never => {
    throw new LockstepError("E_DATASET_DIRECTORY", { directory, problem });
  };
  const all = await filesBelow(directory);
  refuseOtherStores(all, { directory, isData, fail });
  const subset = chooseSubset(await readSubsets(directory), request, fail);
  const { splits, isNamed, others, unclear } = divide(all, subset, isData, fail);
  const found = [...splits.values()].flat();
  if (found.length === 0) {
    return fail(
      all.length === 0 ? "it is empty" : `none of its files is data that is read: ${listed(all)}`,
    );
  }
  if (unclear !== undefined) {
    return fail(`${unclear[0]} is named after several splits, ${unclear[1].join(" and ")}`);
  }
  refuseTwice(found, fail);
  const wanted = request.split === undefined ? splitsFor[purpose] : [request.split];
  const takesAll = !isNamed && (request.split ?? "train") === "train";
  const split = takesAll ? "train" : wanted.find((name) => splits.has(name));
  if (split === undefined) {
    const has = [...splits].map(([name, files]) => `${name} (${listed(files)})`).join(", ");
    const left = others.length === 0 ? "" : `; in no split: ${listed(others)}`;
    const there = isNamed ? `it has ${has}${left}` : "its files are of no split by their names";
    return fail(`it has no split ${wanted.join(" or ")}: ${there}`);
  }
  const files = splits.get(split) ?? [];
  const notes: string[] = [];
  if (isNamed) notes.push(describe(directory, { split, splits, others, purpose }));
  if (!isNamed && files.some((name) => name.includes("/"))) {
    notes.push(
      `${directory}: no names tell splits, so all its ${files.length} files are read, those in directories below it too`,
    );
  }
  const unread = all.filter((name) => otherData.test(name) && !isData(name) && !isBeside(name));
  if (unread.length > 0) notes.push(`${directory}: not read: ${listed(unread)}`);
  return { files: files.map((name) => join(directory, name)), notes };
}

function describe(
  directory: string,
  what: Pick<Division, "splits" | "others"> & { split: string; purpose: string },
): string {
  const { split, splits, others, purpose } = what;
  const count = (files: readonly string[] | undefined): string =>
    `${files?.length ?? 0} file${files?.length === 1 ? "" : "s"}`;
  const rest = [...splits].filter(([name]) => name !== split);
  const toValidate = splitsFor["validation"]?.find((name) => name !== split && splits.has(name));
  const left = [
    ...rest.map(([name, files]) => `${name} (${count(files)})`),
    ...(others.length === 0 ? [] : [`what is in no split (${listed(others)})`]),
  ];
  const verb = purpose === "train" ? "trains on" : "validates on";
  const hint =
    purpose === "train" && toValidate !== undefined
      ? `; eval_dataset: ${directory} validates on ${toValidate}`
      : "";
  return (
    `${directory} ${verb} its split ${split} (${count(splits.get(split))})` +
    `${left.length === 0 ? "" : `, and not on ${left.join(", ")}${hint}`}`
  );
}

/** The files of the subset by their splits. */
function divide(
  all: readonly string[],
  subset: Subset | undefined,
  isData: (name: string) => boolean,
  fail: (problem: string) => never,
): Division {
  const data = all.filter((name) => isData(name) && !isBeside(name));
  if (subset?.patterns !== undefined) {
    const splits = new Map<string, readonly string[]>();
    for (const [split, patterns] of subset.patterns) {
      const names = patterns.flatMap((pattern) => {
        const matching = data.filter(pathMatcher(pattern));
        if (matching.length === 0) {
          fail(`README.md names ${pattern} for ${split}, which is not there`);
        }
        return matching;
      });
      splits.set(split, [...new Set(names)]);
    }
    return { splits, isNamed: true, others: [], unclear: undefined };
  }
  const root = (subset?.directory ?? "").replace(/^(\.\/)+|\/+$/g, "");
  const prefix = root === "" ? "" : `${root}/`;
  const inside = data.filter((name) => name.startsWith(prefix));
  const division = divideBySplits(inside.map((name) => name.slice(prefix.length)));
  const whole = (name: string): string => `${prefix}${name}`;
  return {
    ...division,
    splits: new Map([...division.splits].map(([split, names]) => [split, names.map(whole)])),
    others: division.others.map(whole),
  };
}

function chooseSubset(
  subsets: readonly Subset[],
  { subset }: SourceRequest,
  fail: (problem: string) => never,
): Subset | undefined {
  const names = subsets.map(({ name }) => name);
  if (subset !== undefined) {
    const chosen = subsets.find(({ name }) => name === subset);
    if (chosen !== undefined) return chosen;
    const has = names.length === 0 ? "no README.md that lists subsets" : names.join(", ");
    return fail(`it has no subset ${subset}: it has ${has}`);
  }
  const [only] = subsets;
  if (subsets.length < 2) return only;
  const chosen = subsets.find(({ isDefault }) => isDefault);
  if (chosen !== undefined) return chosen;
  return fail(
    `it has the subsets ${names.join(", ")}: write an entry that names one, dataset: [{ path: DIRECTORY, name: ${names[0] ?? ""} }]`,
  );
}

/** Directories of other programs, whose files look like data. */
function refuseOtherStores(
  all: readonly string[],
  {
    directory,
    isData,
    fail,
  }: { directory: string; isData: (name: string) => boolean; fail: (problem: string) => never },
): void {
  const hasRows = all.some((name) => isData(name) && !isBeside(name));
  const isSaved = all.some(
    (name) =>
      basename(name) === "dataset_dict.json" ||
      (extname(name) === ".arrow" && (!hasRows || all.includes(join(dirname(name), "state.json")))),
  );
  if (isSaved) {
    fail(
      "save_to_disk wrote it, in Arrow's form, which is not read: in Python, load_from_disk(DIRECTORY) gives the data set, and its to_json(FILE.jsonl) or to_parquet(FILE.parquet) writes each split",
    );
  }
  const snapshots = [...new Set(all.flatMap((name) => /^snapshots\/[^/]+/.exec(name) ?? []))];
  if (snapshots.length > 0 && all.some((name) => name.startsWith("refs/"))) {
    const which = snapshots.map((name) => join(directory, name)).join(" or ");
    fail(`it is a repository in a hub's cache: name its snapshot, ${which}`);
  }
}

/** The same examples in two forms would be learnt twice. */
function refuseTwice(files: readonly string[], fail: (problem: string) => never): void {
  const byStem = new Map<string, string>();
  for (const name of files) {
    const stem = name.replace(/(\.\w+?)(\.gz)?$/i, "");
    const before = byStem.get(stem);
    if (before !== undefined) {
      fail(
        `${before} and ${name} look like the same rows in two forms: name the one that is meant`,
      );
    }
    byStem.set(stem, name);
  }
}

const isBeside = (name: string): boolean =>
  besides.includes(basename(name)) || pages.test(basename(name));

function listed(names: readonly string[]): string {
  const rest = names.length - 3;
  return `${names.slice(0, 3).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
