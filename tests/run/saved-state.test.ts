import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readState } from "#run/files";

test("what a run remembers between steps is read as it was saved, or refused with its file", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-state-"));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, "state.json");
  const state = { step: 3, numUpdates: 2, epoch: 0.5, numInputTokens: 96, logHistory: [] };
  const read = async (changes: object) => {
    await writeFile(file, JSON.stringify({ ...state, ...changes }));
    return readState(file);
  };
  assert.deepEqual(await read({}), state);
  const lossScaler = { scale: 0.25, growthTracker: 7 };
  assert.deepEqual(await read({ lossScaler }), { ...state, lossScaler });
  for (const changes of [
    ...[null, 65_536, {}, { scale: 0, growthTracker: 0 }, { scale: "8", growthTracker: 0 }].map(
      (other) => ({ lossScaler: other }),
    ),
    ...[{ scale: 8 }, { scale: 8, growthTracker: 0.5 }].map((other) => ({ lossScaler: other })),
    ...[null, 1, {}].map((schedule) => ({ schedule })),
    ...[{ step: -0.5 }, { numUpdates: "2" }, { logHistory: null }],
  ]) {
    await assert.rejects(read(changes), { code: "E_JSON_FILE" }, JSON.stringify(changes));
  }
});
