import fs from "node:fs";
import { dirname, join } from "node:path";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";

/** A path among the fixtures. */
export const fixture = (...parts: string[]): string =>
  join(packageRoot, "tests", "fixtures", ...parts);

export const readFixture = (...parts: string[]): Buffer => fs.readFileSync(fixture(...parts));

/** The bytes of texts. */
export const texts = (...values: string[]): readonly Buffer[] =>
  values.map((value) => Buffer.from(value));

/** Copies files of a fixture's folder into a new one. */
export function copyFixture(from: string, to: string, names: readonly string[]): void {
  fs.mkdirSync(to, { recursive: true });
  for (const name of names) {
    const file = join(to, name);
    fs.mkdirSync(dirname(file), { recursive: true });
    fs.copyFileSync(join(from, name), file);
  }
}

/** Reads an input that lies in a file. */
export const inFile =
  <T>(file: string, read: (file: string) => Promise<T>) =>
  (input: Buffer): Promise<T> => {
    fs.writeFileSync(file, input);
    return read(file);
  };

/** Calls what must always be called at the end, and keeps the first error. */
export async function closing<T>(
  opened: { close(): Promise<void> },
  use: () => Promise<T>,
): Promise<T> {
  try {
    return await use();
  } finally {
    await opened.close();
  }
}

/** Runs all of several readings of one input; ends with the first error of the catalogue that one of them had. */
export async function all(readings: readonly (() => unknown)[]): Promise<void> {
  const refusals: unknown[] = [];
  for (const read of readings) {
    try {
      await read();
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      refusals.push(error);
    }
  }
  if (refusals.length > 0) throw refusals[0];
}
