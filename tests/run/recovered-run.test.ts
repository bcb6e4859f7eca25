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

test("best weights that were being saved are saved before a step that was agreed on changes them", () => {
  const agreed = { step: 20, isMeasurement: false, sums: [], seconds: 1 };
  const recovered = (bestStep: number, step = 20) => {
    const checkpoint = { step, best: { step: bestStep } };
    const left = { runId: "run", state: { savedStep: 20, checkpoint }, agreed };
    const run = { config: { load_best_model_at_end: true } } as unknown as StartedRun;
    const start = { left, output: { checkpoints: [] }, resume: undefined } as unknown as RunStart;
    const notes: string[] = [];
    const bus = new InProcessEventBus();
    bus.subscribe((event) => event.type === "note" && notes.push(event.text));
    return { recovery: recoveryOf(start, run, bus), notes: notes.join() };
  };
  const best = recovered(20);
  assert.equal(best.recovery?.keepsBest, true);
  assert.match(best.notes, /saved after step 20 in its place/);
  const other = recovered(10);
  assert.equal(other.recovery?.keepsBest, false);
  assert.match(other.notes, /saved after step 21 in its place/);
  // The shards do not have them any more.
  const gone = recovered(20, 21);
  assert.equal(gone.recovery, undefined);
  assert.match(gone.notes, /goes back to make it again/);
});
