import assert from "node:assert/strict";
import { test } from "node:test";
import { resumeLines } from "#cli/console";
import { renderFrame } from "#cli/progress/frame";
import { logLine } from "#cli/progress/log-lines";
import { emptyView, foldEvent, type RunView } from "#cli/progress/run-view";
import { renderSummary } from "#cli/progress/summary";
import { plainPalette } from "#lib/core/terminal-text";
import type { LockstepEvent, RunResumed } from "#lib/core/events";

const resumed: RunResumed = {
  type: "run.resumed",
  ...{ directory: "runs/a/checkpoint-8", step: 8, numTokens: 4_096, seconds: 75 },
  losses: [
    { step: 4, loss: 3.5, gradientNorm: 1 },
    { step: 8, loss: 3.25, gradientNorm: 1 },
  ],
  evaluations: [{ step: 0, loss: 3.41, metrics: { perplexity: Math.exp(3.41) } }],
  samples: [{ step: 0, prompt: "the", text: " state" }],
};
const step: LockstepEvent = {
  type: "step.completed",
  ...{ step: 9, totalSteps: 10, epoch: 0.9, loss: 3, learningRate: 1e-4, gradientNorm: 1 },
  ...{ numRows: 2, numTokens: 512, stepSeconds: 2, syncSeconds: 0.1, tokensPerSecond: 256 },
};
const completed = {
  type: "run.completed" as const,
  outcome: "interrupted" as "interrupted" | "finished",
  ...{ step: 9, directory: "runs/a/checkpoint-9", seconds: 5 },
  mastersSha256: "0".repeat(64),
} satisfies LockstepEvent;

const viewOf = (...events: readonly LockstepEvent[]): RunView =>
  events.reduce((view, event) => foldEvent(view, event, 0), emptyView(0));

const summary = (view: RunView, event: Extract<LockstepEvent, { type: "run.completed" }>) =>
  renderSummary(view, event, {
    ...{ columns: 100, palette: plainPalette },
    resumeLines: (checkpoint) => [`Go on with: ${checkpoint}`],
  });

test("a frame before the first step shows how far the run was", () => {
  const training: LockstepEvent = { type: "phase.changed", phase: "training" };
  const started = { type: "run.started", totalSteps: 10 } as unknown as LockstepEvent;
  const view = viewOf(started, resumed, training);
  const [, line = ""] = renderFrame(view, { columns: 100, nowMs: 0, palette: plainPalette });
  assert.match(line, /80 % {2}step 8\/10/);
  assert.equal(
    logLine(resumed, view, 0),
    "goes on from runs/a/checkpoint-8: 8 steps, 4,096 tokens in 1 min 15 s before",
  );
});

test("the summary is that of the whole run, and says what this process did", () => {
  const evaluation: LockstepEvent = {
    type: "evaluation.completed",
    ...{ step: 9, loss: 3.24, weight: 5, seconds: 1, metrics: { perplexity: Math.exp(3.24) } },
  };
  const lines = summary(viewOf(resumed, step, evaluation), completed);
  const facts = lines.map((line) => line.replace(/^│ | *│$/g, ""));
  assert.ok(facts.includes("validation loss  3.4100 → 3.2400  (−0.1700)"), lines.join("\n"));
  assert.ok(
    facts.includes(
      "trained          9 steps, 4,608 tokens in 1 min 20 s; since step 8: 1 step in 5.0 s",
    ),
    lines.join("\n"),
  );
  assert.deepEqual(lines.slice(-2), ["Go on with: runs/a/checkpoint-9", ""]);
  const { seconds: _, ...unknown } = resumed;
  const older = summary(viewOf(unknown, step), completed).join("\n");
  assert.match(older, /9 steps, 4,608 tokens; since step 8: 1 step in 5\.0 s/);
});

test("a run that is finished has nothing to go on with", () => {
  const lines = summary(viewOf(resumed, step), { ...completed, outcome: "finished" });
  assert.ok(!lines.some((line) => line.includes("Go on with")));
});

test("the command to go on with is the one that was given, as a shell reads it", () => {
  const lines = (args: readonly string[], program = "/opt/lockstep/bin/lockstep") =>
    resumeLines({ save_only_model: false }, "runs/a b/checkpoint-9", ["node", program, ...args]);
  assert.deepEqual(lines(["train", "job.yaml", "--run_name", "it's"]), [
    "Go on with:",
    "",
    "  /opt/lockstep/bin/lockstep train job.yaml --run_name 'it'\\''s' --resume_from_checkpoint 'runs/a b/checkpoint-9'",
  ]);
  // What it went on from itself is replaced, however it was written.
  for (const given of [
    ["--resume_from_checkpoint", "true"],
    ["--resume-from-checkpoint", "runs/old"],
    ["--resume_from_checkpoint=auto"],
    ["--resume_from_checkpoint", "--eval_on_end"],
  ]) {
    const [, , command = ""] = lines(["train", ...given, "job.yaml"]);
    const kept = given.includes("--eval_on_end") ? "--eval_on_end " : "";
    assert.ok(command.includes(`lockstep train ${kept}job.yaml --resume_from_checkpoint 'runs`));
  }
  // A secret is not repeated, however it was written and whatever a tool calls it.
  for (const given of [
    ["--hub_token", "hf_secret"],
    ["--hub-token=hf_secret"],
    ["--hf_hub_token", "hf_secret"],
    ["--push_to_hub_token=hf_secret"],
    ["--ms-hub-token", "hf_secret"],
  ]) {
    const told = lines(["train", ...given, "job.yaml"]);
    assert.match(told[2] ?? "", /lockstep train job\.yaml --resume_from_checkpoint 'runs/);
    assert.ok(!told.join("\n").includes("hf_secret"), told.join("\n"));
    assert.match(told.at(-1) ?? "", /^What --[\w-]+ was is not shown: give it again\.$/);
  }
  const here = `${process.cwd()}/bin/lockstep`;
  assert.match(lines(["train"], here)[2] ?? "", /^ {2}bin\/lockstep train /);
});

test("a checkpoint without the optimizer's state is no promise", () => {
  const lines = resumeLines({ save_only_model: true }, "runs/a/checkpoint-9", ["node", "lockstep"]);
  assert.match(lines.join(" "), /no run can go on from it/);
});
