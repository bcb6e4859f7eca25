import { resolve } from "node:path";
import type { BadExamples } from "./bad-examples.js";
import { splitContents, splitLoneDocument } from "./documents.js";
import type { ExampleEncoder } from "./encode-stream.js";
import { type DataSource, readExamples, refuseEmpty, sourceFiles } from "./examples.js";
import type { LabelReading } from "./label-reading.js";
import type { DataObserver } from "./observer.js";

/** Sources of both sides, and how examples are divided where only one has any. */
export interface Sides {
  readonly train: readonly DataSource[];
  readonly validation: readonly DataSource[];
  /** Share of the examples that validates where no source does. */
  readonly fraction: number;
  readonly seed: number;
}

/**
 * Reads all sources into an encoder.
 *
 * @param options.tell gets lines for a person
 * @returns whether an example validates, by its number in the order of reading
 * @throws E_DATASET_EMPTY of the validation side, and what {@link readExamples} and the encoder throw
 */
export async function readSides(
  { train, validation, fraction, seed }: Sides,
  encoder: ExampleEncoder,
  options: {
    readonly badExamples: BadExamples;
    readonly labels: LabelReading;
    readonly observer: DataObserver;
    readonly tell: (line: string) => void;
  },
): Promise<(example: number) => boolean> {
  const { badExamples, labels, observer, tell } = options;
  const read = async (purpose: "train" | "validation"): Promise<void> => {
    for (const source of purpose === "train" ? train : validation) {
      const reading = { purpose, tell, observer, readLabel: labels.read };
      for await (const each of readExamples(source, badExamples, reading)) await encoder.add(each);
    }
  };
  // What cannot be read at all is said before anything is read for long.
  const [first, ...more] = await filesOfBoth(train, validation);
  if (first !== undefined) {
    const others = more.length === 0 ? "" : ` (and ${more.length} more files)`;
    tell(`${first} is both trained on and validated on${others}`);
  }
  await read("train");
  const { lone } = encoder;
  if (validation.length > 0) {
    await encoder.flush();
    const numTrain = encoder.starts.length;
    await read("validation");
    await encoder.flush();
    refuseEmpty(encoder.starts.length - numTrain, "validation", validation);
    return (example) => example >= numTrain;
  }
  if (lone?.example.kind === "text") {
    // One file is cut in two before it is tokenised, so that each side begins at a line.
    encoder.dropWaiting();
    const sides = splitLoneDocument({ id: lone.place, text: lone.example.text }, { fraction });
    for (const { id, text } of [...sides.train, ...sides.validation]) {
      await encoder.add({ place: id, example: { kind: "text", text }, format: "text" });
    }
    await encoder.flush();
    return (example) => example >= sides.train.length;
  }
  await encoder.flush();
  const { numContents, numExamples } = encoder;
  const validates = splitContents(numContents, { fraction, seed });
  if (fraction > 0 && numContents === 1) {
    const rows = numExamples === 1 ? "there is one row" : `all ${numExamples} rows are equal`;
    tell(`nothing is kept for validation: ${rows}, and equal rows stay on one side`);
  }
  const contents = encoder.contents.values;
  return (example) => validates.has(contents[example] ?? -1);
}

/** Files that both sides read. @throws what {@link sourceFiles} throws */
async function filesOfBoth(
  train: readonly DataSource[],
  validation: readonly DataSource[],
): Promise<string[]> {
  const filesOf = async (purpose: "train" | "validation"): Promise<Set<string>> => {
    const sources = purpose === "train" ? train : validation;
    const found = await Promise.all(sources.map((source) => sourceFiles(source, purpose)));
    return new Set(found.flatMap(({ files }) => files.map((file) => resolve(file))));
  };
  const trained = await filesOf("train");
  return [...(await filesOf("validation"))].filter((file) => trained.has(file));
}
