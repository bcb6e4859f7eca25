import {
  counted,
  formatBytes,
  formatFigure,
  formatPercent,
  formatRate,
  formatSeconds,
  stepFigures,
  withCommas,
} from "#lib/core/format";
import {
  countsPadding,
  type RunView,
  secondsLeft,
  stepsMade,
  type WorkerView,
} from "./run-view.js";
import { fit, type Palette, pad, printable } from "#lib/core/terminal-text";
import { taskWords } from "./task-words.js";

/** Lines of workers that a terminal shows; the others are counted in one line. */
const maxWorkerLines = 8;
const sparkLevels = "▁▂▃▄▅▆▇█";
const spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏";

const phaseTitles: Readonly<Record<RunView["phase"], string>> = Object.freeze({
  preparing: "Preparing",
  "waiting-for-workers": "Waiting for workers",
  paused: "Paused",
  evaluating: "Evaluating",
  generating: "Generating a sample",
  measuring: "Measuring the Fisher information",
  training: "Training",
  saving: "Saving",
  done: "Done",
});

interface FrameOptions {
  readonly columns: number;
  readonly nowMs: number;
  readonly palette: Palette;
  /** A line that a person must see while it holds: "stopping after this step". */
  readonly notice?: string | undefined;
}

/** The part of the screen that is redrawn in place. Pure: the same view and time give the same lines. */
export function renderFrame(view: RunView, options: FrameOptions): string[] {
  const { columns, palette } = options;
  const lines = ["", progressLine(view, options)];
  if (view.lastStep !== undefined) lines.push(figuresLine(view, palette));
  const workers = [...view.workers.values()];
  const shown = workers.slice(0, maxWorkerLines);
  const idWidth = Math.max(0, ...shown.map((worker) => printable(worker.workerId).length));
  for (const worker of shown) lines.push(workerLine(worker, idWidth, palette));
  if (workers.length > shown.length) {
    const rest = workers.slice(maxWorkerLines);
    const lost = rest.filter((worker) => worker.state === "lost").length;
    lines.push(
      palette.dim(`and ${counted(rest.length, "more worker")}${lost > 0 ? `, ${lost} lost` : ""}`),
    );
  }
  if (options.notice !== undefined) lines.push(palette.bold(options.notice));
  // The last column stays free: some terminals wrap when it is filled.
  return lines.map((line) => fit(line, columns - 1));
}

function progressLine(current: RunView, frame: FrameOptions): string {
  const { nowMs, palette } = frame;
  const title = hasNobody(current) ? "Waiting for a worker" : phaseTitles[current.phase];
  const total = current.started?.totalSteps ?? 0;
  const done = stepsMade(current);
  const inPhase = formatElapsed((nowMs - current.phaseSinceMs) / 1000);
  const turn = spinner[Math.floor(nowMs / 100) % spinner.length] ?? "";
  const detail =
    current.phaseDetail === undefined ? "" : ` ${palette.dim(printable(current.phaseDetail))}`;
  if (total === 0 || current.phase !== "training") {
    return `${palette.accent(turn)} ${palette.bold(title)}${detail} ${palette.dim(inPhase)}`;
  }
  const left = secondsLeft(current, nowMs);
  const tail = `${formatPercent(done / total)}  step ${done}/${total}${
    left === undefined ? `  first step ${inPhase}` : `  ${formatSeconds(left)} left`
  }`;
  const barColumns = Math.max(10, Math.min(40, frame.columns - title.length - tail.length - 8));
  return `${palette.accent(turn)} ${palette.bold(title)} ${bar(done / total, barColumns, palette)} ${tail}`;
}

export function bar(ratio: number, columns: number, palette: Palette): string {
  const filled = Math.round(Math.min(1, Math.max(0, ratio)) * columns);
  return palette.accent("█".repeat(filled)) + palette.dim("░".repeat(columns - filled));
}

/** Work is there, and no worker to do it. */
function hasNobody(view: RunView): boolean {
  const needsWorkers = ["evaluating", "generating", "measuring", "training"].includes(view.phase);
  return needsWorkers && [...view.workers.values()].every(({ state }) => state === "lost");
}

/** Whole seconds: a clock that counts in tenths draws the eye. */
function formatElapsed(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return whole < 10 ? `${whole} s` : formatSeconds(whole);
}

/** The latest values as blocks between their smallest and greatest; not finite shows as "x". */
export function sparkline(values: readonly number[], columns: number): string {
  const latest = values.slice(-columns);
  const finite = latest.filter(Number.isFinite);
  const low = Math.min(...finite);
  const span = Math.max(...finite) - low;
  return latest
    .map((value) => {
      if (!Number.isFinite(value)) return "x";
      const level = span === 0 ? 0 : Math.round(((value - low) / span) * (sparkLevels.length - 1));
      return sparkLevels[level] ?? "";
    })
    .join("");
}

function figuresLine(view: RunView, palette: Palette): string {
  const step = view.lastStep;
  if (step === undefined) return "";
  const loss = formatFigure(step.loss);
  const spark = view.losses.length > 1 ? ` ${palette.accent(sparkline(view.losses, 20))}` : "";
  return [
    `  loss ${Number.isFinite(step.loss) ? palette.bold(loss) : palette.bad(loss)}${spark}`,
    ...taskWords(step.tasks),
    ...stepFigures(view.started?.objective, step.metrics).map((pair) => pair.join(" ")),
    `lr ${formatRate(step.learningRate)}`,
    `grad norm ${formatFigure(step.gradientNorm, 3)}`,
    ...(step.lossScale === undefined ? [] : [`loss scale ${step.lossScale}`]),
    `${withCommas(step.tokensPerSecond)} tokens/s${countsPadding(view) ? " with padding" : ""}`,
    palette.dim(`sync ${formatSeconds(step.syncSeconds)}`),
  ].join("  ");
}

function workerLine(worker: WorkerView, idWidth: number, palette: Palette): string {
  const mark =
    worker.state === "lost"
      ? palette.bad("✗")
      : worker.state === "computing"
        ? palette.good("●")
        : palette.dim("○");
  const state = pad(worker.state, 9);
  const work =
    worker.group === undefined || worker.state === "idle"
      ? ""
      : `${worker.step === undefined ? "" : `step ${worker.step} `}group ${worker.group}`;
  const { telemetry } = worker;
  const device =
    telemetry === undefined || worker.state === "lost"
      ? ""
      : `${telemetry.deviceType} ${formatPercent(telemetry.utilization)}  ${formatBytes(telemetry.memoryUsedBytes)}`;
  return `  ${mark} ${pad(printable(worker.workerId), idWidth)}  ${worker.state === "lost" ? palette.bad(state) : state} ${pad(work, 16)} ${palette.dim(device)}`.trimEnd();
}
