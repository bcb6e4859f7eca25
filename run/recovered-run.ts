import { createHash } from "node:crypto";
import { resumedEvent } from "#coordinator/resumed-event";
import type { CoordinatorOptions } from "#coordinator/options";
import { RunJournal } from "#coordinator/run-journal";
import type { ResolvedConfig } from "#lib/config/index";
import type { WorkerJob } from "#lib/core/job";
import { checkpointName } from "#lib/checkpoint/index";
import type { OwnProcesses } from "./own-processes.js";
import type { EventBus } from "#lib/wire/event-bus";
import { basename } from "node:path";
import { journalPath, type LeftRun, removeJournals } from "./left-run.js";
import type { RunStart, StartedRun } from "./start.js";

/** Whether shards live on when their coordinator dies. */
export const shardsOutlive = (
  { reducers, reducer_processes }: ResolvedConfig,
  own: OwnProcesses | undefined,
): boolean => reducers !== null || (reducer_processes > 0 && own?.outliveCoordinator === true);

/** The same in every life of a run, so that a worker that has an engine for the job keeps it. */
export function jobIdOf({ record, job }: StartedRun): string {
  const described: Omit<WorkerJob, "jobId"> = job;
  const hash = createHash("sha256").update(`${record.runId} ${JSON.stringify(described)}`);
  return hash.digest("hex").slice(0, 32);
}

/** The journal of a run in an output directory; absent: its shards end with the coordinator. */
export function openJournal(
  run: StartedRun,
  claimEpoch: number,
  { bus, own }: { readonly bus: EventBus; readonly own: OwnProcesses | undefined },
): RunJournal | undefined {
  const { config, record, resumedFrom: begunFrom } = run;
  if (!shardsOutlive(config, own)) return undefined;
  const path = journalPath(config.output_dir, claimEpoch);
  const owner = { runId: record.runId, epoch: claimEpoch, begunFrom };
  return new RunJournal(path, owner, {
    note: (text) => bus.publish({ type: "note", text }),
    onBegun: () => removeJournals(config.output_dir, path),
  });
}

/**
 * What a coordinator goes on from where its shards are. A save that was lost with the one before is made up for at
 * once; where that was of the best weights, which the shards do not have any more, the run goes back instead.
 */
export function recoveryOf(
  { left, output, resume }: RunStart,
  run: StartedRun,
  bus: EventBus,
): CoordinatorOptions["recovery"] {
  if (left === undefined) return undefined;
  const { state } = left;
  const { savedStep, checkpoint } = state;
  const isSaved =
    savedStep === 0 ||
    savedStep === resume?.state.step ||
    output.checkpoints.some(
      // One of an earlier run may have the name until it is replaced.
      ({ directory, record }) =>
        basename(directory) === checkpointName(savedStep) && record?.runId === left.runId,
    );
  if (isSaved) return left;
  const note = (text: string): void => bus.publish({ type: "note", text });
  const isBest = run.config.load_best_model_at_end && checkpoint.best?.step === savedStep;
  if (isBest && checkpoint.step !== savedStep) {
    note(
      `warning: ${checkpointName(savedStep)}, of the best evaluation, was lost with the coordinator that saved it: the run goes back to make it again`,
    );
    return undefined;
  }
  // Shards may have made the step that was agreed on, and are not between two steps before that.
  const isAhead = left.agreed?.isMeasurement === false && !isBest;
  const next = checkpoint.step + (isAhead ? 1 : 0);
  note(
    `warning: ${checkpointName(savedStep)} was lost with the coordinator that saved it: the run is saved after step ${next} in its place`,
  );
  return { ...left, state: { ...state, savedStep: 0 }, savesAtOnce: true, keepsBest: isBest };
}

/** Tells where a run goes on that had begun before: where its shards are, or at a checkpoint. */
export function tellWhereItGoesOn(options: {
  readonly run: StartedRun;
  readonly bus: EventBus;
  readonly left: LeftRun | undefined;
  /** What the shards are at; absent: they were loaded. */
  readonly recovered: CoordinatorOptions["recovery"] | undefined;
  readonly resume: RunStart["resume"];
  /** Why the shards are not where the run is, where they were asked. */
  readonly apart: string | undefined;
}): void {
  const { run, bus, left, recovered, resume, apart } = options;
  const { job, plan, config } = run;
  const note = (text: string): void => bus.publish({ type: "note", text });
  if (recovered !== undefined) {
    const { checkpoint } = recovered.state;
    note(
      `the coordinator before this one died: the run goes on where its shards are, after ${checkpoint.step} of ${plan.totalSteps} steps`,
    );
    bus.publish(resumedEvent(config.output_dir, checkpoint, job));
    return;
  }
  if (left !== undefined) {
    const why = apart === undefined ? "" : `: ${apart}`;
    const where = resume === undefined ? "begins anew" : `goes back to ${resume.directory}`;
    note(
      `warning: the coordinator before this one died after step ${left.state.checkpoint.step}, and its shards do not have that any more${why}. The run ${where}`,
    );
  }
  if (resume !== undefined) bus.publish(resumedEvent(resume.directory, resume.state, job));
}
