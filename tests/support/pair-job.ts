import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createTinyJob, document, type TinyJob } from "./tiny-job.js";

type Row = Readonly<Record<string, unknown>>;

/** Rows of TRL's columns: a prompt, and two answers of different lengths. */
const pairRows = (numRows: number, seed = 1): readonly Row[] => {
  const words = document(seed).split(" ");
  const part = (row: number, start: number, length: number): string => {
    const first = (row * 11 + start) % 300;
    return words.slice(first, first + length).join(" ");
  };
  return Array.from({ length: numRows }, (_, row) => ({
    prompt: part(row, 0, 2 + (row % 3)),
    chosen: ` ${part(row, 5, 1 + (row % 4))}`,
    rejected: ` ${part(row, 17, 2 + (row % 2))}`,
  }));
};

/**
 * The tiny Llama's job over pairs of answers, of which two do not fit into a row.
 *
 * @param settings PAIRS and VALIDATION stand for the files of the pairs
 */
export async function createPairJob(
  settings: Row = {},
  rows: readonly Row[] = pairRows(24),
): Promise<TinyJob> {
  const job = await createTinyJob({
    ...{ dataset: ["PAIRS"], eval_dataset: ["VALIDATION"], max_length: 32, sample_prompt: null },
    ...settings,
  });
  const lines = (all: readonly Row[]): string =>
    all.map((row) => `${JSON.stringify(row)}\n`).join("");
  const [pairs, validation] = [
    join(job.directory, "pairs.jsonl"),
    join(job.directory, "validation.jsonl"),
  ];
  await writeFile(pairs, lines(rows));
  await writeFile(validation, lines(pairRows(6, 2)));
  const text = await readFile(job.configFile, "utf8");
  await writeFile(
    job.configFile,
    text.replaceAll("PAIRS", () => pairs).replaceAll("VALIDATION", () => validation),
  );
  return job;
}
