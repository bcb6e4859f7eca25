import { join } from "node:path";
import { classifierConfigFileName } from "#lib/checkpoint/peft/adapter-files";
import type { LockstepEvent } from "#lib/core/events";
import { forgottenOf, forgottenWords, type GeneralLoss } from "#lib/core/forgetting";
import { counted, evaluationFigures, formatFigure, formatSeconds } from "#lib/core/format";
import { countsPadding, type Evaluation, type RunView, type Sample } from "./run-view.js";
import { displayWidth, fit, type Palette, pad, printable, wrap } from "#lib/core/terminal-text";

type RunCompleted = Extract<LockstepEvent, { type: "run.completed" }>;

/** Widest box; longer lines are harder to read than to scroll. */
const maxBoxColumns = 96;

/** What a run leaves in its directory. */
interface SavedKind {
  readonly isClassifier?: boolean;
  /** The base model of an adapter, as it names it. */
  readonly adapterBase?: string | undefined;
}

/** The lines of Python that load it. */
export function pythonLines(directory: string, kind: SavedKind = {}): string[] {
  const { isClassifier = false, adapterBase } = kind;
  const quoted = JSON.stringify(directory);
  const model = `AutoModelFor${isClassifier ? "SequenceClassification" : "CausalLM"}`;
  const tokenizer = `tokenizer = AutoTokenizer.from_pretrained(${quoted}`;
  if (adapterBase === undefined) {
    return [
      `from transformers import ${model}, AutoTokenizer`,
      `model = ${model}.from_pretrained(${quoted})`,
      `${tokenizer})`,
    ];
  }
  if (!isClassifier) {
    return [
      "from peft import AutoPeftModelForCausalLM",
      "from transformers import AutoTokenizer",
      `model = AutoPeftModelForCausalLM.from_pretrained(${quoted})`,
      `${tokenizer})`,
    ];
  }
  // The base has no head, or one of other classes: their number and names are the adapter's.
  const config = JSON.stringify(join(directory, classifierConfigFileName));
  return [
    "from peft import PeftModel",
    `from transformers import AutoConfig, ${model}, AutoTokenizer`,
    `config = AutoConfig.from_pretrained(${config})`,
    `model = ${model}.from_pretrained(${JSON.stringify(adapterBase)}, config=config)`,
    `model = PeftModel.from_pretrained(model, ${quoted})`,
    `${tokenizer}, config=config)`,
  ];
}

/** What stays on the screen after a run: what changed, where the result lies, how to load it. */
export function renderSummary(
  view: RunView,
  completed: RunCompleted,
  options: {
    readonly columns: number;
    readonly palette: Palette;
    /** How to go on from a checkpoint, after a run that was stopped. */
    readonly resumeLines?: ((checkpoint: string) => readonly string[]) | undefined;
  },
): string[] {
  const { palette } = options;
  const boxColumns = Math.max(40, Math.min(maxBoxColumns, options.columns - 1));
  const facts: [string, string][] = [];
  const before = view.evaluations[0];
  const after = view.evaluations.at(-1);
  if (before !== undefined && after !== undefined && after.step > before.step) {
    facts.push(...evaluationFacts(before, after, view, palette));
  } else if (after !== undefined) {
    facts.push(["validation", `loss ${formatFigure(after.loss)} at step ${after.step}`]);
  }
  const general = view.general.at(-1);
  if (general !== undefined) facts.push(generalFact(general, palette));
  facts.push(
    ["trained", trainedText(view, completed)],
    ...(completed.stoppedEarly === undefined
      ? []
      : ([["stopped early", completed.stoppedEarly]] satisfies [string, string][])),
    ["result", completed.directory],
    ...bestFacts(view, completed),
    ["weights", `SHA-256 ${completed.mastersSha256}`],
  );
  const title = completed.outcome === "finished" ? "Finished" : "Interrupted, saved";
  const labelColumns = Math.max(...facts.map(([label]) => label.length));
  const rows = facts.flatMap(([label, text]) =>
    fold(text, boxColumns - labelColumns - 6).map(
      (line, index) => `${palette.dim(pad(index === 0 ? label : "", labelColumns))}  ${line}`,
    ),
  );
  const lines = box(title, rows, boxColumns, palette);
  const [first, last] = [view.samples[0], view.samples.at(-1)];
  if (first !== undefined && last !== undefined && last !== first) {
    lines.push("", ...renderSample(first, options), "", ...renderSample(last, options));
  }
  // A run that was stopped before its first step saved nothing of its own.
  if (completed.step === 0) return [...lines, ""];
  const python = pythonLines(completed.directory, {
    isClassifier: view.started?.numClasses !== undefined,
    adapterBase: view.started?.adapterBase,
  });
  lines.push("", "Load it in Python:", "", ...python, "");
  if (completed.outcome === "interrupted") {
    lines.push(...(options.resumeLines?.(completed.directory) ?? []), "");
  }
  return lines;
}

/** Which step's weights the result has, where these are not the last. */
function bestFacts(
  { evaluations, general }: RunView,
  { step, bestStep }: RunCompleted,
): [string, string][] {
  if (bestStep === undefined || bestStep === step) return [];
  const best = evaluations.find((evaluation) => evaluation.step === bestStep);
  const loss = best === undefined ? "" : `, validation loss ${formatFigure(best.loss)}`;
  const kept = general.find((figure) => figure.step === bestStep);
  const forgotten = kept === undefined ? undefined : forgottenOf(kept);
  const ofGeneral =
    kept === undefined || forgotten === undefined
      ? ""
      : `, general loss ${formatFigure(kept.loss)} (${forgottenWords(forgotten)})`;
  return [["", `the best weights, of step ${bestStep}${loss}${ofGeneral}`]];
}

/** All of the run, and the part of it that this process did where there were others before. */
function trainedText(view: RunView, completed: RunCompleted): string {
  const { resumed, numTokens } = view;
  const padding = countsPadding(view) ? " with padding" : "";
  const trained = `${counted(completed.step, "step")}, ${counted(numTokens, "token")}${padding}`;
  if (resumed === undefined) return `${trained} in ${formatSeconds(completed.seconds)}`;
  const since = `${counted(completed.step - resumed.step, "step")} in ${formatSeconds(completed.seconds)}`;
  const total =
    resumed.seconds === undefined
      ? ""
      : ` in ${formatSeconds(resumed.seconds + completed.seconds)}`;
  return `${trained}${total}; since step ${resumed.step}: ${since}`;
}

function evaluationFacts(
  before: Evaluation,
  after: Evaluation,
  { started }: RunView,
  palette: Palette,
): [string, string][] {
  const figures = ({ metrics }: Evaluation): [string, string][] =>
    evaluationFigures(started?.objective, metrics);
  const change = after.loss - before.loss;
  const sign = change > 0 ? "+" : change < 0 ? "\u2212" : "";
  const figure = `${sign}${formatFigure(Math.abs(change))}`;
  const coloured = change < 0 ? palette.good(figure) : change > 0 ? palette.bad(figure) : figure;
  return [
    [
      "validation loss",
      `${formatFigure(before.loss)} → ${formatFigure(after.loss)}  (${coloured})`,
    ],
    ...figures(after).map(([name, figure], index): [string, string] => [
      name,
      `${figures(before)[index]?.[1]} → ${figure}`,
    ]),
  ];
}

/** What general rows lost, which is what was forgotten. */
function generalFact(figure: GeneralLoss, palette: Palette): [string, string] {
  const { step, loss, before } = figure;
  const forgotten = forgottenOf(figure);
  if (before === undefined || forgotten === undefined) {
    return ["general loss", `${formatFigure(loss)} at step ${step}`];
  }
  const words = forgottenWords(forgotten);
  const coloured = forgotten <= 0 ? palette.good(words) : palette.bad(words);
  return ["general loss", `${formatFigure(before)} → ${formatFigure(loss)}  (${coloured})`];
}

/**
 * A prompt, dimmed, and its continuation, under a title that says when; of a chat, the user's message
 * and the answer.
 */
export function renderSample(
  sample: Sample,
  options: { readonly columns: number; readonly palette: Palette },
): string[] {
  const { palette } = options;
  const when = sample.step === 0 ? "before training" : `after ${counted(sample.step, "step")}`;
  const prompt = printable(sample.prompt);
  const text = printable(sample.text, true);
  const columns = Math.max(20, Math.min(maxBoxColumns, options.columns - 1) - 2);
  const title = palette.bold(`Sample ${when}`);
  if (sample.isChat) {
    return [
      title,
      ...wrap(`user: ${prompt}`, columns).map((line) => `  ${palette.dim(line)}`),
      ...wrap(`assistant: ${text}`, columns).map((line) => `  ${line}`),
    ];
  }
  const lines = wrap(`${prompt}${text}`, columns);
  let promptLeft = displayWidth(wrap(prompt, Number.POSITIVE_INFINITY).join(" "));
  return [
    title,
    ...lines.map((line) => {
      const head = line.slice(0, promptLeft);
      promptLeft = Math.max(0, promptLeft - line.length - 1);
      return `  ${head === "" ? "" : palette.dim(head)}${line.slice(head.length)}`;
    }),
  ];
}

/** Cuts a text into lines of a width, inside words: a digest or a path is still all there. */
function fold(text: string, columns: number): string[] {
  if (displayWidth(text) <= columns) return [text];
  if (!text.includes(" ") || text.startsWith("SHA-256 ")) {
    const lines: string[] = [];
    for (let start = 0; start < text.length; start += columns) {
      lines.push(text.slice(start, start + columns));
    }
    return lines;
  }
  return wrap(text, columns);
}

function box(title: string, rows: readonly string[], columns: number, palette: Palette): string[] {
  const inner = columns - 4;
  const top = `${palette.dim("╭─")} ${palette.bold(title)} ${palette.dim(`${"─".repeat(Math.max(0, inner - displayWidth(title) - 1))}╮`)}`;
  const edge = palette.dim("│");
  return [
    top,
    ...rows.map((row) => `${edge} ${pad(fit(row, inner), inner)} ${edge}`),
    palette.dim(`╰${"─".repeat(columns - 2)}╯`),
  ];
}
