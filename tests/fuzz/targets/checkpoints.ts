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
import { JournalFile, type JournalRecord, readJournal } from "#lib/checkpoint/journal-file";
import { outputRecordFile } from "#lib/checkpoint/run-record";
import { printConfig, resolveConfig } from "#lib/config/index";
import { readRunJournal, RunJournal } from "#coordinator/run-journal";
import type { RunState } from "#coordinator/run-state";
import {
  checksumsFile,
  ownFolder,
  piecesFile,
  writeCheckpointSums,
} from "#lib/checkpoint/checked-files";
import { configFile, stateFile } from "#run/checkpoint-files";
import { openCheckpoint } from "#run/resume";
import { property, type Target } from "#tests/fuzz/target";
import { all, closing, inFile, readFixture } from "./files.js";

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
  await writeCheckpointSums(directory);
}

async function readCheckpoint(directory: string): Promise<void> {
  const { optimizer } = await openCheckpoint(
    directory,
    { s3_endpoint: null, s3_region: null },
    { readsAll: true },
  );
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
        if (file === piecesFile) await writeChecksums(directory, checksumsFile);
        else if (file !== checksumsFile) await writeCheckpointSums(directory);
        await readCheckpoint(directory);
      }),
    };
  },
});

/** What a coordinator left of its run; half of the inputs are records whose checksums are those of changed values. */
const journal: Target = {
  name: "checkpoints/journal",
  share: 1,
  async open(folder) {
    const path = join(folder, "journal-1.bin");
    const runState: RunState = {
      checkpoint: {
        ...state,
        account: {
          ...{ seconds: 1, numTokens: 10, numSteps: 5, lossSum: Number.NaN, unloggedLosses: [-0] },
          samples: [{ step: 0, tokens: [1], prompt: "p", text: "t" }],
        },
      },
      skipped: { inARow: 1, unscaled: 0 },
      session: { seconds: 1, numSteps: 5, numRows: 9, tokensBefore: 0, secondsBefore: 0 },
      evaluations: [{ step: 5, loss: 1, weight: 2, seconds: 0.1, metrics: { accuracy: 1 } }],
      samples: [],
      savedStep: 4,
      fisher: { numRounds: 0, isDone: true },
      deviceKind: "cpu",
    };
    const written = new RunJournal(path, { runId: "r", epoch: 3 }, { note: assert.fail });
    await written.state(runState, { rows: Float32Array.of(1, 2) });
    await written.agreed({
      ...{ step: 5, isMeasurement: false, seconds: 0.5, metrics: {} },
      sums: [{ lossSum: Number.POSITIVE_INFINITY, weight: 3 }],
    });
    await written.close();
    const { records } = await readJournal(path);
    return {
      kind: "bytes",
      form: "bytes",
      corpus: [fs.readFileSync(path)],
      words: ['{"$number":"NaN"}', '"added":', '"arrays":[["rows",', "LSJr"],
      read: async (input) => {
        fs.writeFileSync(path, input);
        const readings = [() => readRunJournal(path)];
        if ((input[0] ?? 0) % 2 === 0) {
          // A value that the checksums vouch for.
          readings.push(async () => {
            const text = input.toString("latin1");
            const value = changed(records[text.length % records.length]?.value, text);
            const [first, ...rest] = [{ value, arrays: {} }, ...records];
            const file = await JournalFile.create(path, first as JournalRecord);
            for (const record of rest) await file.append(record);
            await file.close();
            return readRunJournal(path);
          });
        }
        await all(readings);
      },
    };
  },
};

/** A value with one of its parts replaced, by what the text says. */
function changed(value: unknown, text: string): unknown {
  if (typeof value !== "object" || value === null) return [null, text, -1, {}][text.length % 4];
  const entries = Object.entries(value);
  const at = (text.charCodeAt(text.length >> 1) || 0) % Math.max(1, entries.length);
  const rest = text.slice(0, text.length >> 1);
  const parts = entries.map(([key, each], i) => [key, i === at ? changed(each, rest) : each]);
  const made = Object.fromEntries(parts as [string, unknown][]);
  return Array.isArray(value) ? Object.values(made) : made;
}

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
  checkpointFile("checkpoints/pieces", piecesFile, "json"),
  checkpointFile(
    "checkpoints/optimizer",
    `${ownFolder}/optimizer-00002-of-00002.safetensors`,
    "bytes",
  ),
  outputRecord,
  journal,
  trainerStateFile,
  trainerStateRoundTrip,
  optimizerRoundTrip,
];
