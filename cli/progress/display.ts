import type { EventSource } from "#lib/wire/event-bus";
import type { LockstepEvent } from "#lib/core/events";
import {
  compactCount,
  counted,
  evaluationFigures,
  evaluationSize,
  gapFigures,
  formatFigure,
  formatSeconds,
  skippedStep,
  slowProducts,
  withCommas,
} from "#lib/core/format";
import { savedSize } from "./saved-size.js";
import { fisherWords, generalLossWords } from "#lib/core/forgetting";
import { renderFrame } from "./frame.js";
import {
  corruptionWords,
  evaluationTitle,
  jsonLine,
  logLine,
  paceWords,
  mirrorLine,
  resumedLine,
} from "./log-lines.js";
import { emptyView, foldEvent, type RunView } from "./run-view.js";
import { renderSample, renderSummary } from "./summary.js";
import { LivePainter, type TerminalStream } from "./terminal.js";
import { colorPalette, type Palette, plainPalette, printable } from "#lib/core/terminal-text";

type DisplayMode = "live" | "lines" | "json";

export interface Display {
  /** A line for the person: where the dashboard is, that the run stops after this step. */
  note(text: string): void;
  /** A line as it is, without the time in front. */
  print(text: string): void;
  /** A line that stays in view until replaced; undefined removes it. */
  setNotice(text: string | undefined): void;
  close(): void;
}

interface DisplayOptions {
  readonly mode: DisplayMode;
  readonly stream: TerminalStream;
  readonly color: boolean;
  readonly nowMs: () => number;
  /** How to go on from a checkpoint, for the summary of a run that was stopped. */
  readonly resumeLines?: (checkpoint: string) => readonly string[];
}

/** Ten frames a second are smooth for a bar and cost nothing beside training. */
const frameIntervalMs = 100;

/** A terminal gets a live display, anything else plain lines. */
export function chooseMode(options: {
  readonly isTerminal: boolean;
  readonly jsonLogs: boolean;
  readonly plain: boolean;
  readonly term: string | undefined;
}): DisplayMode {
  if (options.jsonLogs) return "json";
  return options.isTerminal && !options.plain && options.term !== "dumb" ? "live" : "lines";
}

/** https://no-color.org; FORCE_COLOR as Node itself reads it. */
export function chooseColor(
  isTerminal: boolean,
  env: Readonly<Record<string, string | undefined>>,
): boolean {
  if ((env.NO_COLOR ?? "") !== "") return false;
  const forced = env.FORCE_COLOR;
  if (forced !== undefined) return forced !== "0" && forced !== "false";
  return isTerminal;
}

export function startDisplay(bus: EventSource, options: DisplayOptions): Display {
  return options.mode === "live" ? startLive(bus, options) : startLines(bus, options);
}

function startLines(bus: EventSource, options: DisplayOptions): Display {
  const { stream, nowMs } = options;
  let view = emptyView(nowMs());
  const write = (text: string): void => {
    stream.write(`${text}\n`);
  };
  const stamp = (): string => new Date(nowMs()).toISOString().slice(11, 19);
  const note = (text: string): void => {
    if (options.mode === "json") {
      write(JSON.stringify({ time: new Date(nowMs()).toISOString(), type: "note", text }));
    } else {
      write(`${stamp()} ${text}`);
    }
  };
  const unsubscribe = bus.subscribe((event) => {
    view = foldEvent(view, event, nowMs());
    if (options.mode === "json") {
      const line = jsonLine(event, new Date(nowMs()));
      if (line !== undefined) write(line);
      return;
    }
    const line = logLine(event, view, nowMs());
    if (line !== undefined) write(`${stamp()} ${line}`);
    if (event.type === "run.completed") {
      const palette = options.color ? colorPalette : plainPalette;
      const columns = stream.columns ?? 80;
      const { resumeLines } = options;
      for (const row of renderSummary(view, event, { columns, palette, resumeLines })) write(row);
    }
  });
  return {
    note,
    print: write,
    setNotice: (text) => {
      if (text !== undefined) note(text);
    },
    close: unsubscribe,
  };
}

function startLive(bus: EventSource, options: DisplayOptions): Display {
  const { stream, nowMs } = options;
  const palette = options.color ? colorPalette : plainPalette;
  const painter = new LivePainter(stream);
  let view = emptyView(nowMs());
  let notice: string | undefined;
  const paint = (): void => {
    painter.paint(renderFrame(view, { columns: painter.columns, nowMs: nowMs(), palette, notice }));
  };
  const unsubscribe = bus.subscribe((event) => {
    view = foldEvent(view, event, nowMs());
    if (event.type === "run.completed") {
      painter.close();
      const { columns } = painter;
      const { resumeLines } = options;
      painter.print(renderSummary(view, event, { columns, palette, resumeLines }));
      clearInterval(timer);
      return;
    }
    const lasting = lastingLines(event, view, painter.columns, palette);
    if (lasting.length > 0) painter.print(lasting);
  });
  const timer = setInterval(paint, frameIntervalMs);
  timer.unref();
  return {
    note: (text) => painter.print([text]),
    print: (text) => painter.print([text]),
    setNotice: (text) => {
      notice = text;
      paint();
    },
    close: () => {
      clearInterval(timer);
      unsubscribe();
      painter.close();
    },
  };
}

/** Lines that an event leaves above the live block. */
function lastingLines(
  event: LockstepEvent,
  view: RunView,
  columns: number,
  palette: Palette,
): string[] {
  switch (event.type) {
    case "run.started":
      return [
        "",
        `${palette.bold("Lockstep")}  ${printable(event.runName)}  ${palette.dim(`${compactCount(event.numParameters)} parameters`)}`,
        palette.dim(
          `  ${counted(event.numTrainRows, "row")} of ${counted(event.sequenceLength, "token")}, ` +
            `${withCommas(event.numValidationRows)} for validation`,
        ),
        ...(event.dataLines ?? []).map((line) => palette.dim(`  ${printable(line)}`)),
        palette.dim(
          `  ${counted(event.totalSteps, "step")} of ${counted(event.globalBatchSize, "row")} in ` +
            `${counted(event.gradientGroups, "gradient group")}, ${counted(event.plannedWorkers, "worker")}`,
        ),
      ];
    case "run.resumed":
      return [palette.dim(`  ${resumedLine(event)}`)];
    case "evaluation.completed":
      return [
        `${palette.good("✓")} ${evaluationTitle(event.step)}: loss ${palette.bold(formatFigure(event.loss))}, ` +
          [...gapFigures(event), ...evaluationFigures(view.started?.objective, event.metrics)]
            .map(([name, figure]) => `${name} ${palette.bold(figure)}`)
            .join(", ") +
          palette.dim(
            ` (${evaluationSize(view.started?.objective, event.weight)}, ${formatSeconds(event.seconds)})`,
          ),
      ];
    case "fisher.measured":
      return [`${palette.good("✓")} ${fisherWords(event)}`];
    case "general.evaluated":
      return [
        `${palette.good("✓")} ${evaluationTitle(event.step)}: ${generalLossWords(event)}` +
          palette.dim(
            ` (${evaluationSize(undefined, event.weight)}, ${formatSeconds(event.seconds)})`,
          ),
      ];
    case "sample.generated": {
      const sample = view.samples.at(-1);
      // The later one stands beside the first in the summary.
      return sample?.step === 0 ? renderSample(sample, { columns, palette }) : [];
    }
    case "worker.joined":
      return slowProducts(event).map(
        (line) => `${palette.bad("!")} ${printable(event.workerId)}: ${line}`,
      );
    case "step.completed":
      return skippedStep(event).map((line) => `${palette.bad("!")} ${line}`);
    case "note":
      return [event.text];
    case "shard.takenOver":
    case "mirror.lost":
    case "mirror.inPlace":
      return [mirrorLine(event)];
    case "worker.lost":
      return [
        `${palette.bad("✗")} ${printable(event.workerId)} lost: ${printable(event.reason)}; its work goes to another worker`,
      ];
    case "worker.corrupted":
      return [`${palette.bad("!")} ${corruptionWords(event)}`];
    case "worker.pace":
      return [palette.dim(`  ${paceWords(event)}`)];
    case "group.requeued":
      return [
        palette.dim(
          `  ${event.isMeasurement === true ? "round" : "step"} ${event.step + 1} group ${event.group} is leased again: ${printable(event.reason)}`,
        ),
      ];
    case "checkpoint.saved":
      return [
        `${palette.good("✓")} saved ${event.directory} ${palette.dim(`(${savedSize(event)}, ${formatSeconds(event.seconds)})`)}`,
      ];
    default:
      return [];
  }
}
