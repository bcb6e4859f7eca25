/** `lockstep train-local`: the run of run/train-local.ts, told line by line. */
import { loadConfig, printConfig } from "#lib/config/index";
import type { LockstepEvent, RunStarted } from "#lib/core/events";
import { ewcFigures, fisherWords, generalLossWords } from "#lib/core/forgetting";
import { gapFigures, stepFigures } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { objectiveOf } from "#lib/objectives/index";
import { isLogged } from "#lib/objectives/metrics";
import { taskWords } from "./progress/task-words.js";
import { startLocal } from "#run/local-run";
import { exitCodes, onStopSignals } from "./stop-signals.js";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** `lockstep train-local CONFIG.yaml [--key value ...]`. Returns the exit code. */
export async function trainLocalCommand(args: string[]): Promise<number> {
  const { config, warnings } = await loadConfig(args, "train-local");
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(printConfig(config));
  const run = startLocal(config);
  let signals: ReturnType<typeof onStopSignals> | undefined;
  let started: RunStarted | undefined;
  run.subscribe((event) => {
    if (event.type === "run.started") {
      started = event;
      signals = onStopSignals({
        onFirst: () => {
          say("stopping after this step; a second signal exits at once");
          run.requestStop();
          return true;
        },
        onSecond: () => {},
        onUserSignal: (signal) => {
          if (config.user_signal === "stop") return false;
          say(`${signal}: going on; train-local saves the finished model alone`);
          return true;
        },
      });
    }
    for (const line of linesOf(event, started)) say(line);
  });
  try {
    const { outcome, step } = await run.outcome;
    const received = signals?.received();
    if (outcome === "finished" || received === undefined) return 0;
    say(
      `stopped after step ${step} of ${started?.totalSteps}; nothing is saved: train-local saves the finished model alone, lockstep train saves where it stops`,
    );
    return exitCodes[received];
  } finally {
    signals?.remove();
  }
}

/** What a person is told of an event. */
function linesOf(event: LockstepEvent, started: RunStarted | undefined): readonly string[] {
  switch (event.type) {
    case "run.started":
      return event.dataLines ?? [];
    case "note":
      return [event.text];
    case "phase.changed":
      return event.phase === "training"
        ? titleOf(started)
        : event.detail === undefined
          ? []
          : [event.detail];
    case "evaluation.completed": {
      // What follows from the loss is not said beside it.
      const { kind, metrics = [] } = started?.objective ?? {};
      const follows = kind === undefined ? [] : objectiveOf(kind).metrics;
      const figures = metrics
        .filter(({ key }) => !follows.some((one) => one.key === key && !isLogged(one)))
        .map(({ key, label, digits }) => `, ${label} ${event.metrics[key]?.toFixed(digits)}`);
      const gap = gapFigures(event).map((pair) => `, ${pair.join(" ")}`);
      return [`validation loss ${event.loss.toFixed(4)}${gap.join("")}${figures.join("")}`];
    }
    case "fisher.measured":
      return [fisherWords(event)];
    case "general.evaluated":
      return [generalLossWords(event)];
    case "sample.generated":
      return [`sample: ${printable(event.prompt)}|${printable(event.text)}`];
    case "step.completed": {
      const { step, totalSteps, loss, learningRate, gradientNorm, lossScale, stepSeconds } = event;
      const figures = [
        ...taskWords(event.tasks),
        ...stepFigures(started?.objective, event.metrics).map((pair) => pair.join(" ")),
      ].map((words) => `${words}  `);
      return [
        `step ${step}/${totalSteps}  loss ${loss.toFixed(4)}  ${figures.join("")}` +
          `lr ${learningRate.toExponential(3)}  grad norm ${gradientNorm.toFixed(3)}  ${stepSeconds.toFixed(2)} s` +
          ewcFigures(event)
            .map((figure) => `  ${figure}`)
            .join("") +
          (lossScale === undefined ? "" : `  loss scale ${lossScale}`) +
          (Number.isFinite(gradientNorm) ? "" : "  no update: the gradient is not finite"),
      ];
    }
    case "checkpoint.saved":
      return [
        `${started?.adapterBase === undefined ? "model" : "adapter"} and history saved in ${event.directory}`,
      ];
    case "run.completed":
      return [`masters sha256 ${event.mastersSha256} (the trained weights in float32)`];
    default:
      return [];
  }
}

function titleOf(started: RunStarted | undefined): string[] {
  const { runName, gradientGroups = 1 } = started ?? {};
  return [
    `training ${runName}`,
    ...(gradientGroups > 1
      ? [`${gradientGroups} gradient groups a step, as of several workers, in one process`]
      : []),
  ];
}
