import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";

export const fixture = (...parts: string[]): string =>
  join(packageRoot, "tests", "fixtures", ...parts);

/** A directory that is removed when the test ends. */
export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-checkpoint-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export async function temporaryFile(
  t: TestContext,
  name: string,
  bytes: Uint8Array,
): Promise<string> {
  const file = join(await temporaryDirectory(t), name);
  await writeFile(file, bytes);
  return file;
}

/** Asserts that `promise` fails with this code of the catalogue and a message that matches. */
export async function rejectsWith(
  promise: Promise<unknown>,
  code: ErrorCode,
  message: RegExp = /./,
): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(isLockstepError(error), `not of the catalogue: ${String(error)}`);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

/** A safetensors file from raw header text and data, whatever they say. */
export function safetensorsBytes(header: string | object, data: Uint8Array | number): Buffer {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([length, json, typeof data === "number" ? Buffer.alloc(data) : data]);
}
