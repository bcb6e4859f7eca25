import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { RunResumed } from "#lib/core/events";
import { metricsOfEntry } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";
import type { CheckpointState } from "./options.js";
import { generalKey } from "./run-log.js";

/** Points of a curve that are told of the time before: more than a screen has columns. */
const maxPoints = 1_024;

/** What was before a checkpoint, as an event: displays and pages show a run from its beginning. */
export function resumedEvent(
  directory: string,
  state: CheckpointState,
  job: Parameters<typeof jobMetrics>[0],
): RunResumed {
  const metered = jobMetrics(job);
  const { step, numInputTokens, account, logHistory } = state;
  const losses = logHistory.flatMap((entry) =>
    "loss" in entry
      ? [
          {
            step: entry.step,
            loss: number(entry, "loss"),
            gradientNorm: number(entry, "grad_norm"),
          },
        ]
      : [],
  );
  const evaluations = logHistory.flatMap((entry) => {
    if (!("eval_loss" in entry)) return [];
    const loss = number(entry, "eval_loss");
    const trainLoss = entry["eval_train_loss"];
    const ofTraining = typeof trainLoss === "number" ? { trainLoss } : {};
    return [{ step: entry.step, loss, metrics: metricsOfEntry(metered, entry), ...ofTraining }];
  });
  const general = logHistory.flatMap((entry) =>
    generalKey in entry ? [{ step: entry.step, loss: number(entry, generalKey) }] : [],
  );
  const before = general.find(({ step: at }) => at === 0)?.loss;
  return {
    type: "run.resumed",
    directory,
    step,
    numTokens: account?.numTokens ?? numInputTokens,
    ...(account === undefined ? {} : { seconds: account.seconds }),
    losses: thinned(losses),
    evaluations: thinned(evaluations),
    ...(general.length === 0
      ? {}
      : {
          general: thinned(general).map((figure) =>
            before === undefined || figure.step === 0 ? figure : { ...figure, before },
          ),
        }),
    samples: (account?.samples ?? []).map(({ step: at, prompt, text, isChat }) => ({
      ...{ step: at, prompt, text },
      ...(isChat === undefined ? {} : { isChat }),
    })),
  };
}

const number = (entry: LogEntry, name: string): number => {
  const value = entry[name];
  return typeof value === "number" ? value : Number.NaN;
};

/** Every n-th of them, and always the first and the last. */
function thinned<T>(points: readonly T[]): readonly T[] {
  const stride = Math.ceil(points.length / maxPoints);
  if (stride <= 1) return points;
  return points.filter((_, index) => index % stride === 0 || index === points.length - 1);
}
