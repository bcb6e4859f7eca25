import { tmpdir } from "node:os";
import { basename } from "node:path";
import { loadConfig, type ResolvedConfig, withChanges } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import {
  DataLedger,
  isInSide,
  lengthFigures,
  maxListedExamples,
  type PreparedDataset,
  previewRow,
  rowsOfPlace,
  type Split,
} from "#lib/data/index";
import { refuseClassifierOfTexts } from "#run/classifier";
import { openDataModel } from "#run/data-model";
import { detailOnStandardError } from "#run/model-directory";
import { type PreparedData, prepareData } from "#run/prepare-data";
import { configOfTask } from "#run/prepare-tasks";
import { rejectedJson, rowJson, summaryJson } from "./preview-json.js";
import { type PreviewStyle, rowLines } from "./preview-lines.js";
import { layoutLines, sourceLines } from "./preview-summary.js";
import { chooseColor } from "./progress/display.js";
import { colorPalette, plainPalette } from "#lib/core/terminal-text";

const defaultRows = 3;

interface Request {
  /** The configuration's file and flags. */
  readonly configArgs: readonly string[];
  readonly numRows: number;
  /** Of an example, where one row is asked for. */
  readonly place: string | undefined;
  /** Undefined: the training side, or either one for a place. */
  readonly split: Split | undefined;
  /** Whose rows are shown, where the run has several tasks. */
  readonly task: string | undefined;
  readonly json: boolean;
  readonly isFull: boolean;
}

/**
 * `lockstep data preview`: prepares the data of a configuration as a run does and shows what comes out. Bad
 * rows are left out, so that all of them are seen at once; where they would end the run, the exit code is 1.
 *
 * @throws E_USAGE, and what a run's preparation throws
 */
export async function previewCommand(args: readonly string[]): Promise<number> {
  const request = parse(args);
  const { config: asked, warnings } = await loadConfig(request.configArgs);
  const config = taskConfig(asked, request);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  const opened = await openDataModel(config, { onDetail: detailOnTerminal, weights: false });
  const ledger = new DataLedger(keepsAllRejected(request) ? { maxRejected: Infinity } : {});
  const style = styleOf(request);
  let data: PreparedData;
  try {
    data = await prepareData(
      // A preview leaves nothing in the run's directory.
      withChanges(config, { on_bad_row: "skip", output_dir: tmpdir() }),
      { ...opened.context, onDetail: detailOnTerminal, observer: ledger },
    );
  } catch (error) {
    await writeRead(ledger, request, style);
    throw error;
  }
  try {
    const { dataset } = data;
    const rows = chooseRows(request, dataset, ledger);
    if (!request.json && style.color && dataset.layout !== "labelled") {
      await write(`Learnt tokens are shown \u001b[7mlike this\u001b[27m.\n\n`);
    }
    for (const { split, row } of rows) {
      const shown = await previewRow(dataset, split, row, { ledger, ...opened });
      const numRows = dataset[split]?.rows.numRows ?? 0;
      const isPacked = dataset.layout === "packed";
      const isRead = await write(
        request.json
          ? `${rowJson(shown)}\n`
          : `${rowLines(shown, numRows, isPacked, style).join("\n")}\n`,
      );
      // As where `| head` has its lines.
      if (!isRead) break;
    }
    await writeRead(ledger, request, style);
    await writeSummary(data, ledger, request, style);
    if (dataset.classes === undefined) refuseClassifierOfTexts(opened.modelConfig);
  } finally {
    data.closeData();
  }
  if (ledger.numRejected === 0 || config.on_bad_row === "skip") return 0;
  process.stderr.write(
    "A run ends at the first row that cannot be used: correct the rows, or set on_bad_row: skip.\n",
  );
  return 1;
}

/** What is being done, where somebody waits for it. */
const detailOnTerminal = (detail: string): void => {
  if (process.stderr.isTTY) detailOnStandardError(detail);
};

function styleOf({ isFull }: Request): PreviewStyle {
  const isTerminal = process.stdout.isTTY === true;
  const color = chooseColor(isTerminal, process.env);
  return {
    columns: isTerminal ? (process.stdout.columns ?? 80) : Number.POSITIVE_INFINITY,
    color,
    palette: color ? colorPalette : plainPalette,
    isFull,
  };
}

/** Waits for who reads: a preview of many rows is larger than a pipe. @returns false if nobody reads any more */
const write = (text: string): Promise<boolean> =>
  new Promise((resolve) => {
    process.stdout.write(text, (error) => resolve(error === undefined || error === null));
  });

/** Who reads all of them, or asks for one. */
const keepsAllRejected = ({ json, isFull, place }: Request): boolean =>
  json || isFull || place !== undefined;

interface Chosen {
  readonly split: Split;
  /** From 0. */
  readonly row: number;
}

/** @throws E_USAGE for a side or a place that is in no row, and what a row that cannot be used is rejected for */
function chooseRows(request: Request, dataset: PreparedDataset, ledger: DataLedger): Chosen[] {
  const { place, split, numRows } = request;
  const splits: readonly Split[] =
    split === undefined ? (place === undefined ? ["train"] : ["train", "validation"]) : [split];
  if (split === "validation" && dataset.validation === undefined) {
    throw usage("no row is kept for validation (eval_dataset, validation_split)");
  }
  if (place === undefined) {
    return splits.flatMap((each) => {
      const count = Math.min(numRows, dataset[each]?.rows.numRows ?? 0);
      return Array.from({ length: count }, (_, row) => ({ split: each, row }));
    });
  }
  const isMeant = (each: string): boolean =>
    each === place || basename(each) === place || each.endsWith(`/${place}`);
  const found = splits.flatMap((each) =>
    rowsOfPlace(dataset, each, ledger, isMeant).map((row) => ({ split: each, row })),
  );
  if (found.length > 0) return found;
  const rejected = ledger.rejected.find(({ message }) => message.includes(`${place}:`));
  if (rejected !== undefined) throw rejected;
  const isRead = (["train", "validation"] as const).find((each) =>
    isInSide(dataset, each, ledger, isMeant),
  );
  throw usage(
    isRead === undefined
      ? `no example comes from ${place}; a place is a file and a line, as in ${examplePlace(ledger)}`
      : splits.includes(isRead)
        ? `${place} is in no row: max_train_samples, max_eval_samples or the end of the text left it out`
        : `${place} is on the ${isRead === "train" ? "training" : "validation"} side: --split ${isRead}`,
  );
}

const examplePlace = (ledger: DataLedger): string =>
  ledger.lengths.length === 0 ? "chats.jsonl:12" : ledger.example(0).place;

async function writeRead(ledger: DataLedger, request: Request, style: PreviewStyle): Promise<void> {
  const { sources, numRejected, rejected } = ledger;
  if (request.json) {
    for (const error of rejected) await write(`${rejectedJson(error)}\n`);
    return;
  }
  const listed = request.isFull ? rejected : rejected.slice(0, maxListedExamples);
  const messages = listed.map(({ code, message }) => `${code}: ${message}`);
  await write(`${sourceLines({ sources, numRejected, rejected: messages }, style).join("\n")}\n\n`);
}

async function writeSummary(
  data: PreparedData,
  ledger: DataLedger,
  request: Request,
  style: PreviewStyle,
): Promise<void> {
  const { dataset, plan } = data;
  const lengths = lengthFigures(ledger.lengths);
  const { sources, numRejected } = ledger;
  await write(
    request.json
      ? `${summaryJson(dataset, { sources, numRejected, lengths, totalSteps: plan.totalSteps })}\n`
      : `${layoutLines(dataset, data.layoutLines, lengths, style).join("\n")}\n`,
  );
}

const usage = (problem: string): LockstepError =>
  new LockstepError("E_USAGE", { command: "data preview", problem });

/** Takes this command's options out of the arguments; the others are the configuration's. @throws E_USAGE */
/** The configuration whose rows are shown: of a run with several tasks that of one. @throws E_USAGE */
function taskConfig(config: ResolvedConfig, { task }: Request): ResolvedConfig {
  const names = Object.keys(config.tasks ?? {});
  const [first] = names;
  if (first === undefined) {
    if (task === undefined) return config;
    throw usage(`--task ${task} is of a run with several tasks, and this one has none`);
  }
  if (task !== undefined && !names.includes(task)) {
    throw usage(`--task ${task} is none of ${names.join(", ")}`);
  }
  const shown = task ?? first;
  if (task === undefined) {
    const others = names.slice(1).join(" or ");
    process.stderr.write(`rows of the task ${shown}; --task ${others} shows others\n`);
  }
  return configOfTask(config, shown);
}

function parse(args: readonly string[]): Request {
  const taken = new Map<string, string>();
  const configArgs: string[] = [];
  const switches = ["json", "full"];
  for (let i = 0; i < args.length; i++) {
    const [, name = "", , value] = /^--([\w-]+)(=(.*))?$/s.exec(args[i] ?? "") ?? [];
    if (switches.includes(name) && value === undefined) {
      taken.set(name, "");
    } else if (["rows", "row", "split", "task"].includes(name)) {
      const given = value ?? args[++i];
      if (given === undefined || given === "") throw usage(`--${name} needs a value`);
      taken.set(name, given);
    } else configArgs.push(args[i] ?? "");
  }
  const [rows, place, split] = [taken.get("rows"), taken.get("row"), taken.get("split")];
  const numRows = Number(rows ?? defaultRows);
  if (!Number.isSafeInteger(numRows) || numRows < 0) {
    throw usage(`--rows ${rows} is not a whole number`);
  }
  if (rows !== undefined && place !== undefined) throw usage("it takes --rows or --row, not both");
  if (split !== undefined && split !== "train" && split !== "validation") {
    throw usage(`--split ${split} is neither train nor validation`);
  }
  if (configArgs.length === 0) throw usage("it needs a configuration, or its keys as flags");
  return {
    ...{ configArgs, numRows, place, split },
    task: taken.get("task"),
    json: taken.has("json"),
    isFull: taken.has("full"),
  };
}
