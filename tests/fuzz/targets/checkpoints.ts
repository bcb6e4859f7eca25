import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  listOwnedCheckpoints,
  newRunRecord,
  OptimizerStateReader,
  readOutputRecord,
  readTrainerState,
  type RunIdentity,
  trainerState,
  writeCheckpointRecord,
  writeChecksums,
  writeOptimizerState,
  writeOutputRecord,
  writeTrainerState,
} from "#lib/checkpoint/index";
import { outputRecordFile } from "#lib/checkpoint/run-record";
import { printConfig, resolveConfig } from "#lib/config/index";
import { checksumsFile, configFile, ownFolder, stateFile } from "#run/files";
import { openCheckpoint } from "#run/resume";
import { property, type Target } from "#tests/fuzz/target";
import { closing, inFile, readFixture } from "./files.js";

const identity: RunIdentity = {
  settings: { learning_rate: 1e-3, lr_scheduler_kwargs: { min_lr: 1 }, seed: 1 },
  data: { training: "a".repeat(64), validation: null },
  dataSettings: { dataset: ["a.jsonl"], packing: null },
  base: { weights: "c".repeat(64), config: { rope_theta: 10_000 } },
};
const state = {
  step: 5,
  numUpdates: 5,
  epoch: 0.5,
  numInputTokens: 100,
  logHistory: [{ step: 1, epoch: 0.1, loss: 2.5 }],
  best: { metric: 0.5, step: 5 },
  lossScaler: { scale: 65_536, growthTracker: 3 },
};
const numElements = 64;

/** A checkpoint as a run saves it, but for its model. */
async function writeCheckpoint(directory: string): Promise<void> {
  const own = join(directory, ownFolder);
  fs.mkdirSync(own, { recursive: true });
  await writeCheckpointRecord(directory, {
    ...newRunRecord(identity),
    savedAtMs: 1_700_000_000_000,
  });
  fs.writeFileSync(join(directory, stateFile), JSON.stringify(state));
  const { config } = resolveConfig(
    new Map([
      ["model_name_or_path", { value: "m", where: "here" }],
      ["dataset", { value: "a.jsonl", where: "here" }],
      ["output_dir", { value: "out", where: "here" }],
    ]),
    new Map(),
    { cpuCount: 1 },
  );
  fs.writeFileSync(join(directory, configFile), printConfig(config));
  const part = (start: number, end: number) => ({
    range: { start, end },
    masters: new Float32Array(end - start).fill(1),
    states: { first_moment: new Float32Array(end - start) },
  });
  await writeOptimizerState(own, [part(0, 32), part(32, numElements)]);
  await writeChecksums(directory, checksumsFile);
}

async function readCheckpoint(directory: string): Promise<void> {
  const { optimizer } = await openCheckpoint(directory);
  await closing(optimizer, async () => {
    const range = { start: 0, end: numElements };
    await optimizer.readMasters(range, new Float32Array(numElements));
    await optimizer.readStates(range, { first_moment: new Float32Array(numElements) });
  });
  await listOwnedCheckpoints(join(directory, ".."));
}

/** One file of a checkpoint; its checksum is that of the changed bytes, so that they are looked at. */
const checkpointFile = (name: string, file: string, form: "json" | "text" | "bytes"): Target => ({
  name,
  share: 1,
  async open(folder) {
    const directory = join(folder, "checkpoint-5");
    await writeCheckpoint(directory);
    const path = join(directory, file);
    return {
      kind: "bytes",
      form,
      corpus: [fs.readFileSync(path)],
      words: ["lockstep/state.json", "../../x", "/etc/passwd", "lockstep/../../x"],
      read: inFile(path, async () => {
        if (file !== checksumsFile) await writeChecksums(directory, checksumsFile);
        await readCheckpoint(directory);
      }),
    };
  },
});

const outputRecord: Target = {
  name: "checkpoints/output-record",
  share: 1,
  async open(folder) {
    const finished = {
      step: 5,
      totalSteps: 5,
      fileBytes: { "config.json": 3 },
      settings: { a: 1 },
    };
    await writeOutputRecord(folder, {
      ...newRunRecord(identity),
      finished,
      files: ["config.json"],
    });
    const path = join(folder, outputRecordFile);
    return {
      kind: "bytes",
      form: "json",
      corpus: [fs.readFileSync(path)],
      read: inFile(path, async () => {
        const record = await readOutputRecord(folder);
        if (record !== undefined) await writeOutputRecord(folder, record);
      }),
    };
  },
};

const trainerStateFile: Target = {
  name: "checkpoints/trainer-state",
  share: 1,
  open: async (folder) => ({
    kind: "bytes",
    form: "json",
    corpus: [
      readFixture("huggingface", "out_full", "trainer_state.json"),
      readFixture("huggingface", "out_lora", "checkpoint-5", "trainer_state.json"),
    ],
    read: inFile(join(folder, "trainer_state.json"), async () => {
      await writeTrainerState(folder, await readTrainerState(folder));
      await readTrainerState(folder);
    }),
  }),
};

const logEntry = fc.record({
  step: fc.nat(1e6),
  epoch: fc.double({ min: 0, max: 100, noNaN: true }),
  loss: fc.double({ noNaN: true, noDefaultInfinity: true }),
});
const trainerStateRoundTrip = property(
  "checkpoints/trainer-state-written",
  1,
  fc.record({
    global_step: fc.nat(),
    epoch: fc.double({ min: 0, max: 1e6, noNaN: true }),
    log_history: fc.array(logEntry, { maxLength: 5 }),
    best_metric: fc.option(fc.double({ noNaN: true, noDefaultInfinity: true })),
    trial_name: fc.option(fc.string({ unit: "binary", maxLength: 20 })),
  }),
  async (fields, folder) => {
    await writeTrainerState(folder, trainerState(fields as Parameters<typeof trainerState>[0]));
    const read = await readTrainerState(folder);
    for (const [name, value] of Object.entries(fields)) {
      // JSON has no -0 of an integer's field; what a number is compared by is its value.
      assert.deepEqual(plain(read[name as keyof typeof read]), plain(value), name);
    }
  },
);
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null));

const optimizerRoundTrip = property(
  "checkpoints/optimizer-state-written",
  1,
  fc.record({
    sizes: fc.array(fc.nat(40), { minLength: 1, maxLength: 4 }),
    slots: fc.uniqueArray(fc.constantFrom("exp_avg", "exp_avg_sq", "momentum"), { maxLength: 3 }),
    cut: fc.nat(100),
  }),
  async ({ sizes, slots, cut }, folder) => {
    const directory = fs.mkdtempSync(join(folder, "optimizer-"));
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const value = (tensor: number, i: number): number => tensor * 1_000 + i;
    const values = (tensor: number, start: number, end: number): Float32Array =>
      Float32Array.from({ length: end - start }, (_, i) => value(tensor, start + i));
    let start = 0;
    const shards = sizes.map((size) => {
      const range = { start, end: (start += size) };
      const states = Object.fromEntries(
        slots.map((slot, i) => [slot, values(i + 1, range.start, range.end)]),
      );
      return { range, masters: values(0, range.start, range.end), states };
    });
    await writeOptimizerState(directory, shards);
    const reader = await OptimizerStateReader.open(directory);
    await closing(reader, async () => {
      const range = { start: Math.min(cut, total), end: total };
      const into = new Float32Array(range.end - range.start);
      await reader.readMasters(range, into);
      assert.deepEqual(into, values(0, range.start, range.end));
      const states = Object.fromEntries(slots.map((slot) => [slot, into.slice()]));
      await reader.readStates(range, states);
      for (const [i, slot] of slots.entries()) {
        assert.deepEqual(states[slot], values(i + 1, range.start, range.end));
      }
    });
    fs.rmSync(directory, { recursive: true });
  },
);

export const targets: readonly Target[] = [
  checkpointFile("checkpoints/state", stateFile, "json"),
  checkpointFile("checkpoints/record", `${ownFolder}/run.json`, "json"),
  checkpointFile("checkpoints/config", configFile, "text"),
  checkpointFile("checkpoints/checksums", checksumsFile, "json"),
  checkpointFile(
    "checkpoints/optimizer",
    `${ownFolder}/optimizer-00002-of-00002.safetensors`,
    "bytes",
  ),
  outputRecord,
  trainerStateFile,
  trainerStateRoundTrip,
  optimizerRoundTrip,
];
