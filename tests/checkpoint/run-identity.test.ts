import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  identityDifferences,
  listOwnedCheckpoints,
  ModelWeights,
  newRunRecord,
  type RunIdentity,
  writeCheckpointRecord,
  writeSafetensors,
} from "#lib/checkpoint/index";
import { decisiveFields } from "#lib/checkpoint/run-identity";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import { rowsSha256, type TrainingRows } from "#lib/data/index";
import { temporaryDirectory } from "./support.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

const identity: RunIdentity = {
  settings: { learning_rate: 1e-3, lr_scheduler_kwargs: { min_lr: 1, power: 2 }, seed: 1 },
  data: { training: "a".repeat(64), validation: "b".repeat(64) },
  dataSettings: { dataset: ["a.jsonl"], packing: null },
  base: { weights: "c".repeat(64), config: { rope_theta: 10_000 } },
};

test("every difference is named with what was and what is; equal content elsewhere is none", () => {
  const differences = (changes: Partial<RunIdentity>): string[] =>
    identityDifferences(identity, { ...identity, ...changes });
  const moved = { dataSettings: { dataset: ["b/a.jsonl"], packing: null } };
  assert.deepEqual(differences(moved), []);
  // The order of a mapping's keys says nothing.
  const settings = { ...identity.settings, lr_scheduler_kwargs: { power: 2, min_lr: 1 } };
  assert.deepEqual(differences({ settings }), []);
  assert.deepEqual(differences({ settings: { ...identity.settings, learning_rate: 2e-3 } }), [
    "learning_rate was 0.001 and is now 0.002",
  ]);
  assert.deepEqual(differences({ base: { ...identity.base, config: { rope_theta: 5 } } }), [
    "in the base model's config.json rope_theta was 10000 and is now 5",
  ]);
  assert.deepEqual(differences({ base: { ...identity.base, weights: "d".repeat(64) } }), [
    "the base model's weights had SHA-256 cccccccccccc... and now dddddddddddd...",
  ]);
  const data = { training: "e".repeat(64), validation: null };
  assert.deepEqual(differences({ data, dataSettings: { ...moved.dataSettings, packing: true } }), [
    "the training data had SHA-256 aaaaaaaaaaaa... and now eeeeeeeeeeee...",
    'the validation data had SHA-256 bbbbbbbbbbbb... and now none (dataset was ["a.jsonl"] and is now ["b/a.jsonl"], packing was null and is now true)',
  ]);
  assert.deepEqual(
    decisiveFields({ rope_theta: 1, torch_dtype: "float32", transformers_version: "5" }),
    { rope_theta: 1 },
  );
});

test("weights are compared by their bytes, whatever files they are in", async (t) => {
  const directory = await temporaryDirectory(t);
  const bytes = new Map([
    ["a", Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8])],
    ["b", Uint8Array.from([9, 8, 7, 6])],
  ]);
  const write = async (name: string, files: readonly (readonly string[])[], changed?: string) => {
    const place = join(directory, name);
    await mkdir(place);
    const map: Record<string, string> = {};
    for (const [i, names] of files.entries()) {
      const file = files.length === 1 ? "model.safetensors" : `model-0000${i + 1}.safetensors`;
      const entries = names.map((tensor) => ({
        name: tensor,
        dtype: "F32" as const,
        shape: [(bytes.get(tensor)?.length ?? 0) / 4],
      }));
      await writeSafetensors(join(place, file), entries, (tensor) => {
        const own = Uint8Array.from(bytes.get(tensor) ?? []);
        if (tensor === changed) own[own.length - 1] = 0;
        return own;
      });
      for (const tensor of names) map[tensor] = file;
    }
    if (files.length > 1) {
      const index = JSON.stringify({ metadata: {}, weight_map: map });
      await writeFile(join(place, "model.safetensors.index.json"), index);
    }
    const weights = await ModelWeights.open(place);
    const tensors = [{ name: "b" }, { name: "a" }, { name: "not there" }];
    const digest = await weightsSha256(weights, tensors);
    await weights.close();
    return digest;
  };
  const whole = await write("whole", [["a", "b"]]);
  assert.equal(await write("sharded", [["b"], ["a"]]), whole);
  assert.notEqual(await write("changed", [["a", "b"]], "b"), whole);
  const hash = createHash("sha256");
  for (const [name, values] of bytes) {
    hash.update(JSON.stringify([name, "F32", [values.length / 4]])).update(values);
  }
  assert.equal(whole, hash.digest("hex"));
});

test("rows are compared by what is learnt from them, in their order", async () => {
  const rows = (
    tokens: readonly (readonly number[])[],
    targets: readonly (readonly number[])[] = tokens,
    sequenceLength = 3,
  ): TrainingRows => ({
    ...{ numRows: tokens.length, sequenceLength, numTokens: 0, droppedTokens: 0 },
    inputs: inputFields(),
    targets: [nextTokenField],
    lengthOf: (row) => tokens[row]?.length ?? 0,
    lossWeight: () => 1,
    write: (row, into) => {
      into.tokens.set(tokens[row] ?? []);
      into.targets[nextTokenField.name]?.set(targets[row] ?? []);
    },
  });
  const digests = await Promise.all(
    [
      rows([[1, 2, 3], [4]]),
      rows([[4], [1, 2, 3]]),
      rows([
        [1, 2, 3],
        [4, 0],
      ]),
      rows([[1, 2, 3], [4]], [[1, 2, -100], [4]]),
      rows([[1, 2, 3], [4]], undefined, 4),
    ].map(rowsSha256),
  );
  assert.equal(new Set(digests).size, digests.length);
  assert.equal(await rowsSha256(rows([[1, 2, 3], [4]])), digests[0]);
});

test("checkpoints come in the order in which they were saved; an unreadable record comes last", async (t) => {
  const output = await temporaryDirectory(t);
  const save = async (step: number, savedAtMs: number): Promise<void> => {
    await mkdir(join(output, `checkpoint-${step}`, "lockstep"), { recursive: true });
    const record = { ...newRunRecord(identity), savedAtMs };
    await writeCheckpointRecord(join(output, `checkpoint-${step}`), record);
  };
  await save(6, 10);
  await save(2, 30);
  await save(4, 20);
  await mkdir(join(output, "checkpoint-1"));
  const listed = async (): Promise<[number, boolean, boolean][]> =>
    (await listOwnedCheckpoints(output)).map(({ step, record, isOurs }) => [
      ...([step, record !== undefined, isOurs] as [number, boolean, boolean]),
    ]);
  assert.deepEqual(await listed(), [
    [6, true, true],
    [4, true, true],
    [2, true, true],
    [1, false, false],
  ]);
  const file = join(output, "checkpoint-4", "lockstep", "run.json");
  const text = await readFile(file, "utf8");
  for (const damaged of [
    "{",
    "[]",
    text.replace('"runId"', '"x"'),
    text.replace("run-1", "run-0"),
  ]) {
    await writeFile(file, damaged);
    assert.deepEqual((await listed()).at(-1), [4, false, true]);
  }
});
