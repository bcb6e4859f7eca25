import type { Metrics } from "#lib/core/events";
import type { GeneratedSample } from "./options.js";
import { readUnloggedTasks, type UnloggedTasks } from "./task-log.js";

/** What is told of a whole run, beyond its history: of all processes that took part in it so far. */
export interface RunAccount {
  /** For which the run was open. */
  readonly seconds: number;
  /** Of all rows trained on, padding included. */
  readonly numTokens: number;
  readonly numSteps: number;
  /** Of the steps' losses. */
  readonly lossSum: number;
  /** Losses of the steps since the last training entry of the history. */
  readonly unloggedLosses: readonly number[];
  /** What these steps told of their rows; absent: nothing. */
  readonly unloggedMetrics?: readonly Metrics[];
  /** Of a run with several tasks. */
  readonly unloggedTasks?: UnloggedTasks;
  readonly samples: readonly GeneratedSample[];
}

export const emptyAccount: RunAccount = Object.freeze({
  ...{ seconds: 0, numTokens: 0, numSteps: 0, lossSum: 0 },
  ...{ unloggedLosses: [], samples: [] },
});

/**
 * The account in a checkpoint's state; undefined where it is missing or not one, as in checkpoints of versions
 * that kept none. JSON has null for a loss that is not finite.
 */
export function readAccount(value: unknown): RunAccount | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const given = value as Readonly<Record<string, unknown>>;
  const { seconds, numTokens, numSteps, lossSum, unloggedLosses, samples } = given;
  const isCount = (count: unknown): count is number =>
    typeof count === "number" && Number.isSafeInteger(count) && count >= 0;
  if (typeof seconds !== "number" || !(seconds >= 0)) return undefined;
  if (!isCount(numTokens) || !isCount(numSteps) || !isLoss(lossSum)) return undefined;
  if (!Array.isArray(unloggedLosses) || !unloggedLosses.every(isLoss)) return undefined;
  const unloggedMetrics = readMetrics(given["unloggedMetrics"]);
  if (unloggedMetrics === undefined) return undefined;
  if (!Array.isArray(samples) || !samples.every(isSample)) return undefined;
  const unloggedTasks = readUnloggedTasks(given["unloggedTasks"]);
  const loss = (one: number | null): number => one ?? Number.NaN;
  return {
    ...{ seconds, numTokens, numSteps, samples },
    lossSum: loss(lossSum),
    unloggedLosses: unloggedLosses.map(loss),
    ...(unloggedMetrics.length === 0 ? {} : { unloggedMetrics }),
    ...(unloggedTasks === undefined ? {} : { unloggedTasks }),
  };
}

/** Undefined where a value is no list of figures by their keys. */
function readMetrics(value: unknown): readonly Metrics[] | undefined {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return undefined;
  const read = (value as unknown[]).map((step): Metrics | undefined => {
    if (typeof step !== "object" || step === null) return undefined;
    const entries = Object.entries(step);
    if (!entries.every(([, each]) => isLoss(each))) return undefined;
    return Object.fromEntries(entries.map(([key, each]) => [key, Number(each ?? Number.NaN)]));
  });
  return read.every((step) => step !== undefined) ? read : undefined;
}

const isLoss = (value: unknown): value is number | null =>
  value === null || typeof value === "number";

function isSample(value: unknown): value is GeneratedSample {
  if (typeof value !== "object" || value === null) return false;
  const { step, tokens, prompt, text, isChat } = value as Readonly<Record<string, unknown>>;
  return (
    Number.isSafeInteger(step) &&
    Array.isArray(tokens) &&
    tokens.every(Number.isSafeInteger) &&
    typeof prompt === "string" &&
    typeof text === "string" &&
    (isChat === undefined || typeof isChat === "boolean")
  );
}
