import { appendFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pythonFloat } from "#lib/checkpoint/python-json";
import type { LockstepEvent } from "#lib/core/events";
import type { EventSource } from "./progress/display.js";

/** LLaMA-Factory's file, which its board and its plotting scripts read while a run goes on. */
export const trainerLogFileName = "trainer_log.jsonl";

export interface TrainerLog {
  readonly close: () => void;
}

/**
 * Appends a line for every entry of the history; a run that is not resumed begins a new file.
 * The file helps to watch and is not part of the result: an entry that cannot be written is dropped.
 */
export async function writeTrainerLog(
  outputDir: string,
  bus: EventSource,
  isResumed: boolean,
): Promise<TrainerLog> {
  await mkdir(outputDir, { recursive: true });
  const file = join(outputDir, trainerLogFileName);
  if (!isResumed) await writeFile(file, "");
  const unsubscribe = bus.subscribe((event) => {
    if (event.type !== "history.logged") return;
    try {
      appendFileSync(file, `${trainerLogLine(event)}\n`);
    } catch {
      unsubscribe();
    }
  });
  return { close: unsubscribe };
}

/** Fields, order, units and spelling of LLaMA-Factory's LogCallback; fields without a value are left out. */
export function trainerLogLine(
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
