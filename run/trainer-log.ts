import { closeSync, fstatSync, ftruncateSync, openSync, writeFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type LogEntry, saveFilesAtomically } from "#lib/checkpoint/index";
import { assertWritable } from "#lib/checkpoint/write-guard";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { pythonFloat } from "#lib/checkpoint/python-json";
import type { LockstepEvent } from "#lib/core/events";
import type { EventBus } from "#lib/wire/event-bus";

/** LLaMA-Factory's file, which its board and its plotting scripts read while a run goes on. */
export const trainerLogFileName = "trainer_log.jsonl";

/** Entries that wait for a file that cannot be written; earlier ones are dropped. */
const maxWaitingLines = 10_000;

export interface TrainerLog {
  readonly close: () => void;
}

/**
 * Appends a line for every entry of the history. A run that is not resumed begins a new file; of one that is,
 * what a killed process wrote after the checkpoint is taken out, since it happens again.
 * The file helps to watch and is not part of the result: where it cannot be written the run goes on and says so.
 *
 * @param before the history of the checkpoint that the run goes on from
 * @param beforeDir the output directory of that checkpoint, where it may be another one
 */
export async function writeTrainerLog(
  outputDir: string,
  bus: EventBus,
  before: readonly LogEntry[],
  beforeDir: string = outputDir,
): Promise<TrainerLog> {
  await mkdir(outputDir, { recursive: true });
  const file = join(outputDir, trainerLogFileName);
  const linesIn = async (directory: string): Promise<string[]> => {
    if (before.length === 0) return [];
    const written = await readFile(join(directory, trainerLogFileName), "utf8").catch(() => "");
    return linesOf(written, before);
  };
  const [own, earlier] = [await linesIn(outputDir), await linesIn(beforeDir)];
  const kept = (own.length < earlier.length ? earlier : own).map((line) => `${line}\n`);
  await saveFilesAtomically(outputDir, async (temporary) =>
    writeFile(join(temporary, trainerLogFileName), kept.join("")),
  );
  const appender = new Appender(file, (text) => bus.publish({ type: "note", text }));
  const unsubscribe = bus.subscribe((event) => {
    if (event.type === "history.logged") appender.append(`${trainerLogLine(event)}\n`);
  });
  return {
    close: () => {
      unsubscribe();
      appender.flush();
    },
  };
}

/** Appends lines; those that cannot be written wait for the next one. */
class Appender {
  readonly #file: string;
  readonly #note: (text: string) => void;
  #waiting: string[] = [];
  #isTold = false;

  constructor(file: string, note: (text: string) => void) {
    this.#file = file;
    this.#note = note;
  }

  append(line: string): void {
    this.#waiting = [...this.#waiting.slice(1 - maxWaitingLines), line];
    this.flush();
  }

  flush(): void {
    if (this.#waiting.length === 0) return;
    try {
      assertWritable(this.#file);
      appendWhole(this.#file, this.#waiting.join(""));
      this.#waiting = [];
      this.#isTold = false;
    } catch (error) {
      if (this.#isTold) return;
      this.#isTold = true;
      const { message } = explainWriteError(error, this.#file) as Error;
      this.#note(`warning: ${trainerLogFileName} is behind: ${message} Training goes on.`);
    }
  }
}

/** Appends all of a text or nothing: a disk that is full takes the beginning of a line. */
function appendWhole(file: string, text: string): void {
  const descriptor = openSync(file, "a");
  try {
    const { size } = fstatSync(descriptor);
    try {
      writeFileSync(descriptor, text);
    } catch (error) {
      ftruncateSync(descriptor, size);
      throw error;
    }
  } finally {
    closeSync(descriptor);
  }
}

/** The lines that belong to entries of a history: as many of a step as it has entries. */
export function linesOf(text: string, history: readonly LogEntry[]): string[] {
  const wanted = new Map<number, number>();
  for (const { step } of history) wanted.set(step, (wanted.get(step) ?? 0) + 1);
  return text.split("\n").filter((line) => {
    // The end of a line may be missing where the process was killed.
    const step = Number(/^\{"current_steps": (\d+), .*\}$/.exec(line)?.[1] ?? Number.NaN);
    const left = wanted.get(step) ?? 0;
    if (left > 0) wanted.set(step, left - 1);
    return left > 0;
  });
}

/** Fields, order, units and spelling of LLaMA-Factory's LogCallback; fields without a value are left out. */
function trainerLogLine(
  event: Extract<LockstepEvent, { readonly type: "history.logged" }>,
): string {
  const { entry, totalSteps, elapsedSeconds, numInputTokens } = event;
  const step = entry["step"] ?? 0;
  const secondsPerStep = step === 0 ? 0 : elapsedSeconds / step;
  const fields: [name: string, text: string | undefined][] = [
    ["current_steps", String(step)],
    ["total_steps", String(totalSteps)],
    ["loss", float(entry["loss"])],
    ["eval_loss", float(entry["eval_loss"])],
    ["accuracy", float(entry["rewards/accuracies"])],
    ["lr", float(entry["learning_rate"])],
    ["epoch", float(entry["epoch"])],
    ["percentage", float(totalSteps === 0 ? 100 : rounded((100 * step) / totalSteps))],
    ["elapsed_time", JSON.stringify(timeDelta(elapsedSeconds))],
    ["remaining_time", JSON.stringify(timeDelta(secondsPerStep * (totalSteps - step)))],
    ...(numInputTokens === 0 || elapsedSeconds === 0
      ? []
      : ([
          ["throughput", float(rounded(numInputTokens / elapsedSeconds))],
          ["total_tokens", String(numInputTokens)],
        ] satisfies [string, string | undefined][])),
  ];
  const given = fields.filter(([, text]) => text !== undefined);
  return `{${given.map(([name, text]) => `"${name}": ${text}`).join(", ")}}`;
}

const float = (value: number | null | undefined): string | undefined =>
  value === null || value === undefined ? undefined : pythonFloat(value);

const rounded = (value: number): number => Number(value.toFixed(2));

/** Python's `str(timedelta(seconds=...))` of whole seconds: "0:00:07", "1 day, 2:03:04". */
function timeDelta(seconds: number): string {
  const whole = Math.floor(seconds);
  const days = Math.floor(whole / 86_400);
  const two = (value: number): string => String(value).padStart(2, "0");
  const clock = `${Math.floor((whole % 86_400) / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
  return days === 0 ? clock : `${days} day${days === 1 ? "" : "s"}, ${clock}`;
}
