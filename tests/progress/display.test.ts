import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { scriptedRun } from "#bench/display/scripted-run";
import { chooseColor, chooseMode, startDisplay } from "#cli/progress/display";
import { formatBytes, formatSeconds } from "#lib/core/format";
import { renderFrame, sparkline } from "#cli/progress/frame";
import { jsonLine } from "#cli/progress/log-lines";
import { emptyView, foldEvent, type RunView, secondsLeft } from "#cli/progress/run-view";
import { pythonLines, renderSummary } from "#cli/progress/summary";
import { LivePainter } from "#cli/progress/terminal";
import { displayWidth, fit, plainPalette, printable, wrap } from "#lib/core/terminal-text";
import { packageRoot } from "#lib/core/paths";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

const run = [...scriptedRun({ loseWorkerAtStep: 4 })].map(({ event }) => event);

function viewAfter(isLast: (event: LockstepEvent) => boolean): RunView {
  let view = emptyView(0);
  for (const event of run) {
    view = foldEvent(view, event, 0);
    if (isLast(event)) return view;
  }
  return view;
}

const frame = (view: RunView, columns = 100, nowMs = 0, notice?: string): string[] =>
  renderFrame(view, { columns, nowMs, palette: plainPalette, notice });

test("a frame in the middle of training, to the character", () => {
  const view = viewAfter((event) => event.type === "step.completed" && event.step === 7);
  assert.deepEqual(frame(view, 100, 0, "Stopping after this step"), [
    "",
    "⠋ Training ████████████████████░░░░░░░░░░░░░░░░░░░░ 50 %  step 7/14  43 s left",
    "  loss 3.3558 █▇▆▄▃▂▁  lr 7.86e-5  grad norm 1.750  659 tokens/s  sync 0.42 s",
    "  ○ worker-1  idle                       cpu 96 %  2.0 GB",
    "  ✗ worker-2  lost",
    "Stopping after this step",
  ]);
});

test("a frame before and without workers, and with many of them", () => {
  assert.deepEqual(
    frame(
      foldEvent(emptyView(0), { type: "phase.changed", phase: "preparing", detail: "reading" }, 0),
      80,
      2_500,
    ),
    ["", "⠴ Preparing reading 2 s"],
  );
  const alone = viewAfter(
    (event) => event.type === "phase.changed" && event.phase === "evaluating",
  );
  const nobody = foldEvent(
    foldEvent(alone, { type: "worker.lost", workerId: "worker-1", reason: "" }, 0),
    { type: "worker.lost", workerId: "worker-2", reason: "" },
    0,
  );
  assert.equal(frame(nobody)[1], "⠋ Waiting for a worker 0 s");
  let many = emptyView(0);
  for (let index = 0; index < 40; index++) {
    many = foldEvent(many, { type: "worker.state", workerId: `w${index}`, state: "computing" }, 0);
  }
  const lines = frame(many);
  assert.equal(lines.length, 2 + 8 + 1);
  assert.equal(lines.at(-1), "and 32 more workers");
});

test("workers that come and die again and again are not remembered for ever", () => {
  const worker = { host: "h", pid: 1, deviceKind: "k", deviceType: "cpu" } as const;
  const event = (event: LockstepEvent, to: RunView): RunView => foldEvent(to, event, 0);
  let view = event({ type: "worker.joined", workerId: "here", ...worker }, emptyView(0));
  for (let n = 0; n < 1_000; n++) {
    const workerId = `visitor-${n}`;
    view = event({ type: "worker.joined", workerId, ...worker }, view);
    view = event({ type: "worker.lost", workerId, reason: "gone" }, view);
  }
  assert.equal(view.workers.size, 1 + 256);
  assert.ok(view.workers.has("here") && view.workers.has("visitor-999"));
});

test("no frame is wider than the terminal, whatever the terminal and the step", () => {
  fc.assert(
    fc.property(fc.integer({ min: 10, max: 200 }), fc.nat(run.length), (columns, numEvents) => {
      let view = emptyView(0);
      for (const event of run.slice(0, numEvents)) view = foldEvent(view, event, 0);
      for (const line of frame(view, columns)) assert.ok(displayWidth(line) < columns, line);
    }),
  );
});

test("the time left is the mean pace of the latest steps, less what has passed", () => {
  const view = viewAfter((event) => event.type === "step.completed" && event.step === 7);
  const seconds = view.recentStepSeconds;
  const mean = seconds.reduce((sum, value) => sum + value, 0) / seconds.length;
  assert.ok(Math.abs((secondsLeft(view, 0) ?? 0) - 7 * mean) < 1e-9);
  assert.ok(Math.abs((secondsLeft(view, 2_000) ?? 0) - (7 * mean - 2)) < 1e-9);
  // A step that takes long does not count down into the steps after it.
  assert.ok(Math.abs((secondsLeft(view, 60_000) ?? 0) - 6 * mean) < 1e-9);
  assert.equal(secondsLeft(emptyView(0), 0), undefined);
});

test("the summary says what changed, where it is and how to load it", () => {
  const completed = run.at(-1);
  assert.ok(completed?.type === "run.completed");
  const lines = renderSummary(
    viewAfter(() => false),
    completed,
    {
      columns: 100,
      palette: plainPalette,
    },
  );
  assert.deepEqual(lines.slice(0, 7), [
    `╭─ Finished ${"─".repeat(83)}╮`,
    `│ validation loss  3.5123 → 3.3391  (−0.1732)${" ".repeat(49)} │`,
    `│ perplexity       33.53 → 28.19${" ".repeat(62)} │`,
    `│ trained          14 steps, 57,232 tokens in 2 min 11 s${" ".repeat(38)} │`,
    `│ result           runs/quickstart${" ".repeat(60)} │`,
    `│ weights          SHA-256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08${" ".repeat(3)} │`,
    `╰${"─".repeat(94)}╯`,
  ]);
  assert.deepEqual(lines.slice(-4, -1), [
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    'model = AutoModelForCausalLM.from_pretrained("runs/quickstart")',
    'tokenizer = AutoTokenizer.from_pretrained("runs/quickstart")',
  ]);
  // The digest is all there in a narrow terminal too.
  const narrow = renderSummary(
    viewAfter(() => false),
    completed,
    {
      columns: 60,
      palette: plainPalette,
    },
  );
  const inside = narrow.map((line) => line.replace(/^│ (?:weights)? *|[ │]+$/g, "")).join("");
  assert.ok(inside.includes(completed.mastersSha256));
});

test("the summary says why a run ended early, and which step's weights are the result", () => {
  const completed = run.at(-1);
  assert.ok(completed?.type === "run.completed");
  const view = viewAfter(() => false);
  const [best] = view.evaluations;
  assert.ok(best !== undefined);
  const early = { stoppedEarly: "the last evaluation was no better", bestStep: best.step };
  const options = { columns: 100, palette: plainPalette };
  const text = renderSummary(view, { ...completed, ...early }, options).join("\n");
  assert.match(text, /│ stopped early +the last evaluation was no better +│/);
  const of = `the best weights, of step ${best.step}, validation loss ${best.loss.toFixed(4)}`;
  assert.match(text, new RegExp(`│ result +runs/quickstart +│\\n│ +${of} +│`));
  // The figure of general rows is that of the last step, and of the weights that are kept.
  const figures = [
    { step: best.step, loss: 3.5, before: 3 },
    { step: best.step + 9, loss: 4, before: 3 },
  ];
  const wide = { ...options, columns: 160 };
  const forgot = renderSummary({ ...view, general: figures }, { ...completed, ...early }, wide);
  assert.match(forgot.join("\n"), /4\.0000 +\(\+1\.0000 forgotten\)/);
  assert.match(
    forgot.join("\n"),
    /the best weights.*, general loss 3\.5000[ │\n]+\(\+0\.5000 forgotten\)/,
  );
  const last = renderSummary(view, { ...completed, bestStep: completed.step }, options);
  assert.doesNotMatch(last.join("\n"), /best weights/);
});

test("the lines of Python are those of the pages, for each kind of run", async () => {
  const blocksOf = async (page: string): Promise<string[]> => {
    const text = await readFile(join(packageRoot, page), "utf8");
    return [...text.matchAll(/```python\n(.*?)```/gs)].map(([, block = ""]) => block.trim());
  };
  const [readme, files, classification] = await Promise.all(
    ["README.md", "docs/files.md", "docs/classification.md"].map(blocksOf),
  );
  const lines = (...args: Parameters<typeof pythonLines>) => pythonLines(...args).join("\n");
  assert.ok(readme?.includes(lines("runs/quickstart")));
  assert.deepEqual(files, [lines("runs/lora", { adapterBase: "base" })]);
  assert.deepEqual(classification, [
    lines("runs/classifier", { isClassifier: true }),
    lines("runs/lora-classifier", {
      ...{ isClassifier: true, adapterBase: "/models/all-MiniLM-L6-v2" },
    }),
  ]);
});

test("a run that was stopped before its first step has nothing to load", () => {
  const completed = run.at(-1);
  assert.ok(completed?.type === "run.completed");
  const options = { columns: 100, palette: plainPalette };
  const view = viewAfter((event) => event.type === "run.started");
  const lines = renderSummary(view, { ...completed, outcome: "interrupted", step: 0 }, options);
  assert.ok(!lines.some((line) => line.includes("Python")), lines.join("\n"));
});

/** A terminal that knows the sequences which the painter writes. */
class FakeTerminal {
  columns = 80;
  rows = 24;
  readonly lines: string[] = [""];
  isCursorVisible = true;
  #row = 0;

  write(text: string): void {
    for (const part of text.split(/(\u001b\[[?0-9;]*[A-Za-z]|\n|\r)/)) {
      if (part === "\n") {
        this.#row += 1;
        this.lines[this.#row] ??= "";
      } else if (part === "\u001b[0J") {
        this.lines.splice(this.#row, this.lines.length, "");
      } else if (part === "\u001b[2K") {
        this.lines[this.#row] = "";
      } else if (part === "\u001b[?25l" || part === "\u001b[?25h") {
        this.isCursorVisible = part.endsWith("h");
      } else if (/^\u001b\[\d+A$/.test(part)) {
        this.#row -= Number(part.slice(2, -1));
        assert.ok(this.#row >= 0, "the cursor left the screen");
      } else if (part !== "\r" && !part.startsWith("\u001b")) {
        this.lines[this.#row] += part;
      }
    }
  }
}

test("the live block is redrawn in place, lasting lines stand above it, and it leaves nothing", () => {
  const terminal = new FakeTerminal();
  const painter = new LivePainter(terminal);
  painter.print(["header"]);
  painter.paint(["bar 1", "worker"]);
  assert.equal(terminal.isCursorVisible, false);
  painter.paint(["bar 2"]);
  assert.deepEqual(terminal.lines, ["header", "bar 2", ""]);
  painter.print(["saved"]);
  painter.paint(["bar 3", "worker", "notice"]);
  assert.deepEqual(terminal.lines, ["header", "saved", "bar 3", "worker", "notice", ""]);
  painter.close();
  assert.deepEqual(terminal.lines, ["header", "saved", ""]);
  assert.equal(terminal.isCursorVisible, true);
});

function shown(mode: "lines" | "json" | "live", events: readonly LockstepEvent[] = run): string[] {
  const terminal = new FakeTerminal();
  const bus = new InProcessEventBus((error) => {
    throw error;
  });
  const display = startDisplay(bus, { mode, stream: terminal, color: false, nowMs: () => 0 });
  for (const event of events) bus.publish(event);
  display.close();
  return terminal.lines.filter((line) => line !== "");
}

test("plain lines: one a fact, none of those that only a live display shows", () => {
  const lines = shown("lines");
  assert.equal(lines.filter((line) => / step \d+\/14 /.test(line)).length, 14);
  assert.ok(
    lines.includes(
      "00:00:00 step 2/14  epoch 0.004  loss 3.4904  lr 4.82e-5  grad_norm 2.000  tokens/s 659  sync 0.42 s  left 1 min 15 s",
    ),
  );
  assert.ok(lines.includes("00:00:00 worker-2 lost: the process was killed by SIGKILL"));
  assert.equal(lines.filter((line) => line.includes("utilization")).length, 0);
});

test("JSON lines: every line parses, has a time and a type, and keeps figures that are not finite", () => {
  const lines = shown("json").map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.ok(lines.every(({ time, type }) => typeof time === "string" && typeof type === "string"));
  assert.equal(lines.filter(({ type }) => type === "step.completed").length, 14);
  const line = jsonLine(
    {
      type: "evaluation.completed",
      step: 1,
      loss: Number.NaN,
      weight: 1,
      seconds: 1,
      metrics: { perplexity: Number.POSITIVE_INFINITY },
    },
    new Date(0),
  );
  assert.deepEqual(JSON.parse(line ?? ""), {
    time: "1970-01-01T00:00:00.000Z",
    type: "evaluation.completed",
    step: 1,
    loss: "NaN",
    weight: 1,
    seconds: 1,
    metrics: { perplexity: "Infinity" },
  });
});

test("live: the samples, the validations and the summary stay", () => {
  const lines = shown("live");
  assert.ok(lines.some((line) => line.startsWith("✓ validation before training: loss 3.5123")));
  assert.ok(lines.includes("Sample after 14 steps"));
  assert.equal(lines.filter((line) => line === "Load it in Python:").length, 1);
});

const started = run.find((event) => event.type === "run.started") ?? assert.fail();
const step = run.find((event) => event.type === "step.completed") ?? assert.fail();

test("one of a thing is not called several", () => {
  const single = {
    ...{ ...started, totalSteps: 1, globalBatchSize: 1, gradientGroups: 1, plannedWorkers: 1 },
    ...{ numTrainRows: 1, numTrainTokens: 512 },
  };
  for (const mode of ["lines", "live"] as const) {
    const lines = shown(mode, [single, { ...step, totalSteps: 1 }]).join("\n");
    assert.match(lines, /1 row of 512 tokens, /);
    assert.match(lines, /1 step of 1 row in 1 (gradient )?group, 1 worker\b/);
    assert.doesNotMatch(lines, /\b1 (steps|rows|groups|gradient groups|workers)/);
  }
});

test("tokens a second say that they count padding, where rows have any", () => {
  const padded = { ...started, numTrainTokens: started.numTrainTokens - 1 };
  assert.ok(
    shown("lines", [padded, step]).some((line) => / tokens\/s \d+ with padding /.test(line)),
  );
  let view = emptyView(0);
  for (const event of [padded, step]) view = foldEvent(view, event, 0);
  assert.ok(frame(view).some((line) => / tokens\/s with padding /.test(line)));
  const completed = run.at(-1);
  assert.ok(completed?.type === "run.completed");
  const summary = renderSummary(view, completed, { columns: 100, palette: plainPalette });
  assert.ok(summary.some((line) => /14 steps, [\d,]+ tokens with padding in /.test(line)));
});

test("what ended a run is told on standard error, and the log says only that it ended", () => {
  const failed = { type: "run.failed", code: "E_DISK_FULL", message: "There is no room." } as const;
  assert.deepEqual(shown("lines", [failed]), ["00:00:00 failed: E_DISK_FULL"]);
  assert.deepEqual(shown("live", [failed]), []);
  assert.match(shown("json", [failed])[0] ?? "", /"message":"There is no room\."/);
});

test("text from outside cannot command the terminal", () => {
  assert.equal(printable("a\u001b[2Jb\u0007\u009bc\u202ed\ne"), "a [2Jb  c d e");
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      // biome-ignore lint: the pattern is about control characters
      assert.doesNotMatch(printable(text), /[\u0000-\u001f\u007f-\u009f]/);
    }),
  );
});

test("widths: wide and combining characters, cuts, wraps", () => {
  assert.equal(displayWidth("日本"), 4);
  assert.equal(displayWidth("e\u0301"), 1);
  assert.equal(displayWidth("\u001b[31mred\u001b[39m"), 3);
  assert.equal(fit("日本語", 5), "日本…");
  assert.deepEqual(wrap("one two three", 7), ["one two", "three"]);
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 2, max: 30 }), (text, columns) => {
      assert.ok(displayWidth(fit(text, columns)) <= columns);
      for (const line of wrap(text, columns)) assert.ok(displayWidth(line) <= columns, line);
    }),
  );
});

test("figures for people", () => {
  assert.deepEqual([0.314, 9.4, 42, 151, 3_900, 7_199].map(formatSeconds), [
    "0.31 s",
    "9.4 s",
    "42 s",
    "2 min 31 s",
    "1 h 05 min",
    "2 h 00 min",
  ]);
  assert.deepEqual([12, 1_500, 1.95e9, 538_090_408].map(formatBytes), [
    "12 B",
    "1.5 kB",
    "1.9 GB",
    "538 MB",
  ]);
  assert.equal(sparkline([1, 2, Number.NaN, 3], 10), "▁▅x█");
  assert.equal(sparkline([5, 5], 10), "▁▁");
});

test("which display, and whether in colour", () => {
  const mode = (isTerminal: boolean, jsonLogs = false, plain = false, term = "xterm") =>
    chooseMode({ isTerminal, jsonLogs, plain, term });
  assert.equal(mode(true), "live");
  assert.equal(mode(false), "lines");
  assert.equal(mode(true, true), "json");
  assert.equal(mode(true, false, true), "lines");
  assert.equal(mode(true, false, false, "dumb"), "lines");
  assert.equal(chooseColor(true, {}), true);
  assert.equal(chooseColor(true, { NO_COLOR: "1" }), false);
  assert.equal(chooseColor(false, { FORCE_COLOR: "1" }), true);
});
