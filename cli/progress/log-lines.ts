import type { LockstepEvent, RunResumed } from "#lib/core/events";
import {
  compactCount,
  counted,
  evaluationFigures,
  evaluationSize,
  formatFigure,
  formatRate,
  formatSeconds,
  gapFigures,
  slowProducts,
  stepFigures,
  withCommas,
} from "#lib/core/format";
import { savedSize } from "./saved-size.js";
import { ewcFigures, fisherWords, generalLossWords } from "#lib/core/forgetting";
import { countsPadding, type RunView, secondsLeft } from "./run-view.js";
import { printable } from "#lib/core/terminal-text";
import { taskWords } from "./task-words.js";

/**
 * One plain line for an event, undefined for one that only a live display shows.
 *
 * @param view the view after the event
 */
export function logLine(event: LockstepEvent, view: RunView, nowMs: number): string | undefined {
  switch (event.type) {
    case "run.started":
      return (
        `run ${printable(event.runName)}: ${compactCount(event.numParameters)} parameters, ` +
        `${counted(event.numTrainRows, "row")} of ${counted(event.sequenceLength, "token")}, ` +
        `${withCommas(event.numValidationRows)} for validation, ${counted(event.totalSteps, "step")} of ` +
        `${counted(event.globalBatchSize, "row")} in ${counted(event.gradientGroups, "group")}, ` +
        `${counted(event.plannedWorkers, "worker")}` +
        (event.dataLines ?? []).map((line) => `; ${printable(line.trim())}`).join("")
      );
    case "run.resumed":
      return resumedLine(event);
    case "phase.changed":
      return `${event.phase}${event.detail === undefined ? "" : `: ${printable(event.detail)}`}`;
    case "note":
      return event.text;
    case "worker.joined":
      return (
        `${printable(event.workerId)} joined: ${printable(event.deviceKind)}, ${printable(event.host)} pid ${event.pid}` +
        slowProducts(event)
          .map((line) => `; warning: ${line}`)
          .join("")
      );
    case "worker.lost":
      return `${printable(event.workerId)} lost: ${printable(event.reason)}`;
    case "worker.left":
      return `${printable(event.workerId)} left: ${printable(event.reason)}`;
    case "worker.quarantined": {
      const until = event.seconds === undefined ? "" : ` for ${formatSeconds(event.seconds)}`;
      return `warning: ${printable(event.workerId)} is kept out of the run${until}: ${printable(event.reason)}`;
    }
    case "worker.corrupted":
      return `warning: ${corruptionWords(event)}`;
    case "worker.pace":
      return paceWords(event);
    case "group.diverged": {
      const what =
        event.isEvaluation === true
          ? `batch ${event.group} of the validation after step ${event.step}`
          : `group ${event.group} of step ${event.step + 1}`;
      return `warning: ${event.workerIds.map((id) => printable(id)).join(" and ")} computed different bits for ${what}; it is computed once more`;
    }
    case "push.refused":
      return `refused bytes of ${printable(event.workerId || "a worker without a name")} at ${printable(event.peer)}: ${event.code}${event.numUntold === 0 ? "" : `, and ${event.numUntold} more before`}`;
    case "group.requeued":
      return `${event.isMeasurement === true ? "round" : "step"} ${event.step + 1} group ${event.group} is leased again, ${printable(event.workerId)}: ${printable(event.reason)}`;
    case "step.completed": {
      const left = secondsLeft(view, nowMs);
      return [
        `step ${event.step}/${event.totalSteps}`,
        `epoch ${event.epoch.toFixed(3)}`,
        `loss ${formatFigure(event.loss)}`,
        ...taskWords(event.tasks),
        ...stepFigures(view.started?.objective, event.metrics).map((pair) => pair.join(" ")),
        `lr ${formatRate(event.learningRate)}`,
        `grad_norm ${formatFigure(event.gradientNorm, 3)}`,
        ...ewcFigures(event),
        ...(event.lossScale === undefined ? [] : [`loss_scale ${event.lossScale}`]),
        ...(Number.isFinite(event.gradientNorm) ? [] : ["no update"]),
        `tokens/s ${Math.round(event.tokensPerSecond)}${countsPadding(view) ? " with padding" : ""}`,
        `sync ${formatSeconds(event.syncSeconds)}`,
        ...(left === undefined ? [] : [`left ${formatSeconds(left)}`]),
      ].join("  ");
    }
    case "evaluation.completed":
      return `${evaluationTitle(event.step)}: ${[["loss", formatFigure(event.loss)], ...gapFigures(event), ...evaluationFigures(view.started?.objective, event.metrics)].map((pair) => pair.join(" ")).join(", ")} over ${evaluationSize(view.started?.objective, event.weight)} in ${formatSeconds(event.seconds)}`;
    case "fisher.measured":
      return fisherWords(event);
    case "general.evaluated":
      return `${evaluationTitle(event.step)}: ${generalLossWords(event)} over ${evaluationSize(undefined, event.weight)} in ${formatSeconds(event.seconds)}`;
    case "sample.generated":
      return event.isChat === true
        ? `sample at step ${event.step}: user: ${printable(event.prompt)}|assistant: ${printable(event.text)}`
        : `sample at step ${event.step}: ${printable(event.prompt)}|${printable(event.text)}`;
    case "checkpoint.saved":
      return `saved ${event.directory} (${savedSize(event)} in ${formatSeconds(event.seconds)})`;
    case "run.failed":
      // What it says is on standard error, with what to do next.
      return `failed: ${event.code}`;
    case "run.completed":
      return (
        `${event.outcome} at step ${event.step} after ${formatSeconds(event.seconds)}` +
        (event.stoppedEarly === undefined ? "" : `, stopped early: ${event.stoppedEarly}`)
      );
    case "events.dropped":
      return `${counted(event.numEvents, "event")} before are not in the stream, ${withCommas(event.numLasting)} of them of those that last: the server of events was away for long`;
    case "shard.takenOver":
    case "mirror.lost":
    case "mirror.inPlace":
      return mirrorLine(event);
    // A note says what is done about it.
    case "shard.lost":
    case "shards.rolledBack":
    case "log.lines":
    case "mirror.compared":
    case "checkpoint.failed":
    case "worker.state":
    case "worker.telemetry":
    case "group.leased":
    case "group.completed":
    case "bytes.transferred":
    case "connections.refused":
    case "pushes.waiting":
    case "rpc.handled":
    case "history.logged":
      return undefined;
  }
}

/** What happens to the copies of a shard. */
export function mirrorLine(
  event: Extract<
    LockstepEvent,
    { readonly type: "shard.takenOver" | "mirror.lost" | "mirror.inPlace" }
  >,
): string {
  const { type, shard } = event;
  const address = printable(event.address);
  switch (type) {
    case "shard.takenOver":
      return `warning: ${printable(event.reason)} Its mirror ${address} is shard ${shard} now: no step is lost, and workers join again`;
    case "mirror.lost":
      return `warning: shard ${shard} has one copy only${address === "" ? "" : `, without ${address}`}: ${printable(event.reason)}`;
    case "mirror.inPlace":
      return `shard ${shard} has a mirror at ${address}${event.seconds === 0 ? "" : `, copied in ${formatSeconds(event.seconds)}`}`;
  }
}

/** What a run goes on from. */
export function resumedLine(event: RunResumed): string {
  const time = event.seconds === undefined ? "" : ` in ${formatSeconds(event.seconds)}`;
  const tokens = `${withCommas(event.numTokens)} tokens`;
  return `goes on from ${printable(event.directory)}: ${event.step} steps, ${tokens}${time} before`;
}

/** What is known of a worker whose weights changed. */
export function corruptionWords(
  event: Extract<LockstepEvent, { type: "worker.corrupted" }>,
): string {
  const { workerId, spaces, version, intactVersion } = event;
  const before =
    intactVersion === undefined
      ? "it was not checked before"
      : intactVersion === version
        ? "what it sent of this step is right"
        : `its check after ${counted(intactVersion, "update")} found nothing, and what it sent in between is not known to be right`;
  return `${printable(workerId)} computed with ${spaces.join(" and ")} weights that had changed in its memory, after ${counted(version, "update")}: its group was not sent and is computed anew; ${before}`;
}

/** How fast a worker is beside the others. */
export function paceWords(event: Extract<LockstepEvent, { type: "worker.pace" }>): string {
  const { workerId, isSlow, groupSeconds, medianSeconds } = event;
  const figures = `${formatSeconds(groupSeconds)} a group, the median worker ${formatSeconds(medianSeconds)}`;
  return isSlow
    ? `${printable(workerId)} is slow: ${figures}; it gets fewer groups, and others compute what would be late`
    : `${printable(workerId)} is no longer slow: ${figures}`;
}

export function evaluationTitle(step: number): string {
  return step === 0 ? "validation before training" : `validation at step ${step}`;
}

/** The event and its time as one line of JSON; a figure that is not finite is a string, as in Prometheus. */
export function jsonLine(event: LockstepEvent, time: Date): string | undefined {
  // Several a second a worker, and counted in the metrics.
  if (event.type === "rpc.handled" || event.type === "bytes.transferred") return undefined;
  return JSON.stringify({ time: time.toISOString(), ...event }, (_, value: unknown) =>
    typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
  );
}
