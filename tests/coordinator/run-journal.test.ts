import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { RunJournal } from "#coordinator/run-journal";
import type { RunState } from "#coordinator/run-state";
import { guardWrites } from "#lib/checkpoint/write-guard";
import { LockstepError } from "#lib/core/errors/index";

const state = {
  checkpoint: { step: 0, numUpdates: 0, epoch: 0, numInputTokens: 0, logHistory: [] },
  ...{ skipped: { inARow: 0, unscaled: 0 }, evaluations: [], samples: [], savedStep: 0 },
  session: { numSteps: 0, numRows: 0, seconds: 0, tokensBefore: 0, secondsBefore: 0 },
  fisher: { numRounds: 0, isDone: true },
} satisfies RunState;

test("a run that another coordinator has, or whose disk is full, is told apart by its journal", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-journal-"));
  t.after(() => rm(directory, { recursive: true }));
  const written = async (error: LockstepError): Promise<readonly string[]> => {
    const notes: string[] = [];
    const journal = new RunJournal(
      join(directory, "journal-1.bin"),
      { runId: "run", epoch: 1 },
      { note: (text) => notes.push(text) },
    );
    const endGuard = guardWrites([directory], () => {
      throw error;
    });
    try {
      await journal.state(state, {});
      return notes;
    } finally {
      endGuard();
      await journal.close();
    }
  };
  const file = join(directory, "journal-1.bin");
  assert.match((await written(new LockstepError("E_DISK_FULL", { file })))[0] ?? "", /goes on/);
  for (const error of [
    new LockstepError("E_LEASE_LOST", { name: "my-run", reason: "another one has it" }),
    new LockstepError("E_OUTPUT_DIR_LOST", { directory, by: "another one" }),
  ]) {
    await assert.rejects(written(error), { code: error.code });
  }
});
