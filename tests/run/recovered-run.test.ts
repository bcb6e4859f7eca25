import assert from "node:assert/strict";
import { test } from "node:test";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { recoveryOf } from "#run/recovered-run";
import type { RunStart, StartedRun } from "#run/start";

test("a save that was lost with its coordinator is not made up for by another run's checkpoint", () => {
  const left = { runId: "run", state: { savedStep: 20, checkpoint: { step: 22 } } };
  const run = { config: { load_best_model_at_end: false } } as unknown as StartedRun;
  const savesAtOnce = (runId: string): boolean | undefined => {
    const checkpoints = [{ directory: "/out/checkpoint-20", step: 20, record: { runId } }];
    const start = { left, output: { checkpoints }, resume: undefined } as unknown as RunStart;
    return recoveryOf(start, run, new InProcessEventBus())?.savesAtOnce;
  };
  assert.equal(savesAtOnce("run"), undefined);
  assert.equal(savesAtOnce("an earlier one"), true);
});
