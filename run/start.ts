import { mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { saveFilesAtomically } from "#lib/checkpoint/atomic-save";
import {
  identityDifferences,
  newRunRecord,
  type RunIdentity,
  type RunRecord,
  writeOutputRecord,
} from "#lib/checkpoint/index";
import { isWriteFailure } from "#lib/checkpoint/repeated-save";
import { decisiveFields, differingResults, differingSettings } from "#lib/checkpoint/run-identity";
import {
  dataSettings,
  decisiveSettings,
  isGiven,
  printConfig,
  resultSettings,
  type ResolvedConfig,
  settleConfig,
  takeOver,
} from "#lib/config/index";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import {
  describeOwn,
  listed,
  type OutputContents,
  otherRuns,
  readOutput,
  refuseOthersAverage,
  removeRuns,
  runConfigFile,
} from "./output-contents.js";
import type { PreparedRun } from "./prepared-run.js";
import { findLeftRun, type LeftRun } from "./left-run.js";
import {
  openCheckpoint,
  openNewestWhole,
  type ResumePoint,
  takesNewest,
  wantedCheckpoint,
} from "./resume.js";
import { checkpointPlace } from "./checkpoint-place.js";
import { settledByAdapter } from "./starting-adapter.js";

/** How a run is to begin, as far as its settings tell. */
export interface RunStart {
  /** Settings that the machine decides for a run that starts anew: no other job. */
  readonly ofMachine: readonly string[];
  /** With what a run that goes on keeps of its beginning. */
  readonly config: ResolvedConfig;
  readonly resume: ResumePoint | undefined;
  /** Of a coordinator that died: the run goes on where its shards are, or else as `resume` says. */
  readonly left?: LeftRun | undefined;
  readonly output: OutputContents;
  /** What a person is told of it. */
  readonly lines: readonly string[];
}

/** A run whose place in its output directory is its own. */
export interface StartedRun extends PreparedRun {
  readonly record: RunRecord;
  /** Files of results that are in the output directory, of this run or of one before it. */
  readonly files: readonly string[];
  /** The checkpoint that it goes on from. */
  readonly resumedFrom?: string;
  /** When its last checkpoint was saved, milliseconds since 1970; rises with each. */
  readonly lastSave: { atMs: number };
}

export interface BegunRun {
  readonly run: StartedRun;
  /** The result that is there already; nothing is left to do then, and nothing was changed. */
  readonly finished:
    | {
        /** Fewer than all where evaluations ended the run. */
        readonly step: number;
        readonly totalSteps: number;
        readonly runId: string;
        readonly mastersSha256: string | undefined;
      }
    | undefined;
}

/**
 * Looks at the output directory and opens the checkpoint that the run goes on from: the one that
 * `resume_from_checkpoint` names, or the last saved one that is whole for `true` and `auto`. What the
 * settings tell is refused here, before anything costs time.
 *
 * @param options.isRestart whether this is another start of a coordinator that died
 * @param options.readsAll whether all of a checkpoint is read before the run begins; else only what is small, and the
 *   rest is compared with its checksums as shards read it
 * @param options.shardsOutlive whether shards live on when their coordinator dies, so that a run may have been left
 * @throws E_NO_CHECKPOINT, E_CHECKPOINT_DAMAGED, E_RESUME_MISMATCH, E_OUTPUT_DIR_OTHER_RUN
 */
export async function findStart(
  asked: ResolvedConfig,
  {
    shardsOutlive = false,
    isRestart = false,
    readsAll = true,
  }: {
    readonly shardsOutlive?: boolean;
    readonly isRestart?: boolean;
    readonly readsAll?: boolean;
  } = {},
): Promise<RunStart> {
  const output = await readOutput(asked);
  const left = shardsOutlive ? await findLeftRun(asked, output, isRestart) : undefined;
  const { resume, config, lines } =
    left === undefined
      ? await findResumePoint(asked, output, readsAll)
      : await findLeftPoint(asked, output, left);
  const ofMachine = settledByMachine(asked);
  try {
    const now = { settings: decisiveSettings(config) };
    const open = [...ofMachine, ...settledByAdapter(asked)];
    const others = otherRuns(output, (before) => differingSettings(before, now, open));
    if (others.length > 0 && !asked.overwrite_output_dir) throw otherRun(output, others);
    return { config, resume, left, output, lines, ofMachine };
  } catch (error) {
    await resume?.optimizer.close();
    throw error;
  }
}

async function findResumePoint(
  asked: ResolvedConfig,
  output: OutputContents,
  readsAll: boolean,
): Promise<Omit<RunStart, "output" | "ofMachine">> {
  const anew = { resume: undefined, config: asked, lines: [] };
  const wanted = wantedCheckpoint(asked);
  if (wanted === null || wanted === false) return anew;
  // Of another program's checkpoints the directory's own check speaks.
  const candidates = output.checkpoints.filter(({ isOurs }) => isOurs);
  const found = takesNewest(asked)
    ? await openNewestWhole(output.place, candidates, asked, { readsAll })
    : { point: await openCheckpoint(wanted as string, asked, { readsAll }), lines: [] };
  const { point } = found;
  if (point === undefined) {
    const hasResult = output.finished !== null;
    if (wanted === true && !hasResult) throw noCheckpoint(output);
    const line = `no checkpoint is in ${output.place}, so the run starts (resume_from_checkpoint: auto)`;
    return wanted === "auto" && !hasResult ? { ...anew, lines: [line] } : anew;
  }
  try {
    const before = new Map([...point.settings, ...Object.entries(point.record.began)]);
    const taken = takeOver(asked, before);
    const now = { settings: decisiveSettings(settleConfig(taken.config, point.halfTypes)) };
    const differences = differingSettings(point.record.identity, now, settledByAdapter(asked));
    if (differences.length > 0) {
      if (wanted !== "auto") throw mismatch(point.directory, differences);
      // Of another job's checkpoint the directory's own check speaks.
      await point.optimizer.close();
      return anew;
    }
    const line = `goes on from ${point.directory}, after ${point.state.step} steps`;
    const lines = [...found.lines, line, ...taken.lines];
    return { resume: point, config: taken.config, lines };
  } catch (error) {
    await point.optimizer.close();
    throw error;
  }
}

/** What a run that was left goes on from where its shards are gone. */
async function findLeftPoint(
  asked: ResolvedConfig,
  output: OutputContents,
  left: LeftRun,
): Promise<Omit<RunStart, "output" | "ofMachine">> {
  const { record } = output;
  if (record === undefined) throw new Error("A run was left without a record");
  const own = output.checkpoints.filter((saved) => saved.record?.runId === left.runId);
  // Where its shards live nothing of it is read.
  const readsAll = false;
  const newest = openNewestWhole(output.place, own, asked, { readsAll });
  const found = await newest.catch((error: unknown) => {
    if (!isLockstepError(error) || error.code !== "E_NO_CHECKPOINT") throw error;
    return { point: undefined, lines: [error.message] };
  });
  // The one that it began from may have been rotated away since: it is asked for where there is no later one.
  const point =
    found.point ??
    (left.begunFrom === undefined
      ? undefined
      : await openCheckpoint(left.begunFrom, asked, { readsAll }));
  try {
    const taken = takeOver(asked, new Map([...left.settings, ...Object.entries(record.began)]));
    const now = { settings: decisiveSettings(settleConfig(taken.config, left.halfTypes)) };
    const differences = differingSettings(record.identity, now, settledByAdapter(asked));
    if (differences.length > 0) throw mismatch(output.directory, differences);
    return { resume: point, config: taken.config, lines: [...found.lines, ...taken.lines] };
  } catch (error) {
    await point?.optimizer.close();
    throw error;
  }
}

/**
 * Compares the run with what is in its output directory by all that decides the result, and makes the
 * directory its own. Where the result that the run is to make is there, nothing is changed.
 *
 * @param claim called before anything is changed, with the run that it is
 * @throws E_RESUME_MISMATCH, E_RESUME_PAST_END, E_OUTPUT_DIR_OTHER_RUN, E_NO_CHECKPOINT, E_CONFIG_CONFLICT
 */
export async function beginRun(
  prepared: PreparedRun,
  start: RunStart,
  claim: (runId: string) => Promise<void> = async () => {},
): Promise<BegunRun> {
  const { output, resume, left } = start;
  const { config, plan } = prepared;
  const identity = await identityOf(prepared);
  const differences = (before: RunIdentity): string[] => identityDifferences(before, identity);
  if (resume !== undefined) {
    const different = differences(resume.record.identity);
    if (different.length > 0) throw mismatch(resume.directory, different);
  }
  const others = otherRuns(output, (found) =>
    identityDifferences(found, identity, start.ofMachine),
  );
  if (others.length > 0 && !config.overwrite_output_dir) throw otherRun(output, others);
  const from = resume?.state.step ?? 0;
  const inTheWay = output.checkpoints.filter(
    ({ isOurs, step }) => !isOurs && step > from && step <= plan.totalSteps,
  );
  if (inTheWay.length > 0) {
    const names = listed(inTheWay.map((each) => basename(each.directory)));
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "overwrite_output_dir and output_dir",
      reason: `Lockstep did not save ${names} in ${output.directory}, and a checkpoint of this run may take the place: move it away`,
    });
  }
  if (config.ema_decay !== null) await refuseOthersAverage(output, differences);
  const { record: before } = output;
  const isEnd = (step: number | undefined): boolean =>
    step === plan.totalSteps ||
    (output.finished !== null &&
      step === output.finished.step &&
      staysStopped(output.finished, config));
  const asksForEnd = takesNewest(config) || isEnd(resume?.state.step);
  const finished = others.length === 0 && asksForEnd ? output.finished : null;
  const made = Math.max(resume?.state.step ?? 0, finished?.step ?? 0);
  if (made > plan.totalSteps) {
    const directory = resume?.state.step === made ? resume.directory : output.directory;
    throw new LockstepError("E_RESUME_PAST_END", {
      ...{ directory, step: made, totalSteps: plan.totalSteps },
    });
  }
  const changed = finished === null ? [] : missingInResult(finished, config);
  const isDone = finished !== null && isEnd(finished.step) && changed.length === 0;
  const isAnew = resume === undefined && left === undefined;
  if (isAnew && config.resume_from_checkpoint === true && !isDone) {
    throw noCheckpoint(output);
  }
  const isCleaned =
    config.overwrite_output_dir &&
    left === undefined &&
    !isDone &&
    (resume === undefined || others.length > 0);
  const lines = [...start.lines];
  if (finished !== null && isEnd(finished.step) && changed.length > 0) {
    lines.push(`the result in ${output.directory} is made again: ${changed.join(", ")}`);
  }
  if (output.recordProblem !== undefined) lines.push(`written anew: ${output.recordProblem}`);
  const own = describeOwn(output);
  const { workers, gradient_accumulation_steps } = config;
  const ofLeft = left === undefined ? undefined : before;
  const record =
    resume?.record ?? ofLeft ?? newRunRecord(identity, { workers, gradient_accumulation_steps });
  if (!isDone) {
    await claim(record.runId);
    // What it leaves now the saves of the run remove.
    await (await checkpointPlace(config)).sweep().catch((error: unknown) => {
      if (!isWriteFailure(error)) throw error;
    });
  }
  if (isCleaned) {
    const isKept = (identity: RunIdentity): boolean =>
      resume !== undefined && differences(identity).length === 0;
    const removed = await removeRuns(output, prepared.model.directory, isKept, config);
    if (removed.length > 0) {
      lines.push(`overwrite_output_dir: removed from ${bothPlaces(output)}: ${listed(removed)}`);
    }
  } else if (isAnew && own !== undefined && !isDone) {
    lines.push(
      `${bothPlaces(output)} holds ${own} of an earlier run of this job: this one starts anew, replaces them as it saves, and goes on from its own last checkpoint if it is resumed`,
    );
  }
  const savedAt = output.checkpoints.map(({ record }) => record?.savedAtMs ?? 0);
  const run: StartedRun = {
    ...prepared,
    started: {
      ...prepared.started,
      dataLines: [...(prepared.started.dataLines ?? []), ...lines],
    },
    record: { ...runPart(record), identity },
    files: isCleaned ? [] : (before?.files ?? []),
    ...(resume === undefined ? {} : { resumedFrom: resume.directory }),
    lastSave: { atMs: Math.max(0, resume?.record.savedAtMs ?? 0, ...savedAt) },
  };
  if (isDone) {
    const { runId } = before ?? run.record;
    const { step, mastersSha256 } = finished;
    return { run, finished: { step, totalSteps: plan.totalSteps, runId, mastersSha256 } };
  }
  await mkdir(config.output_dir, { recursive: true });
  await saveFilesAtomically(config.output_dir, async (temporary) => {
    await writeFile(join(temporary, runConfigFile), printConfig(config));
    await writeOutputRecord(temporary, { ...run.record, finished: null, files: run.files });
  });
  return { run, finished: undefined };
}

/** Without what only the record of a checkpoint has. */
const runPart = ({
  runId,
  startedAt,
  deviceKind,
  began,
}: RunRecord): Omit<RunRecord, "identity"> => ({
  ...{ runId, startedAt, deviceKind, began },
});

async function identityOf(prepared: PreparedRun): Promise<RunIdentity> {
  const { config, job } = prepared;
  return {
    settings: decisiveSettings(config),
    data: await prepared.data.dataDigests(),
    dataSettings: dataSettings(config),
    base: { weights: await prepared.model.digest(), config: decisiveFields(job.modelConfig) },
    dropout: job.dropout?.rates ?? {},
  };
}

/** The same job on another machine may have other ones. */
function settledByMachine(asked: ResolvedConfig): string[] {
  return [
    ...(isGiven(asked, "threads_per_worker") ? [] : ["threads_per_worker"]),
    ...(["bf16", "fp16"] as const).filter((key) => asked[key] === "auto"),
    ...(asked.wire_dtype === null ? ["wire_dtype"] : []),
  ];
}

/** Whether the result that the run is to make may be there already, by what is known before data is read. */
export const mayBeFinished = ({ config, output, resume }: RunStart): boolean =>
  output.finished !== null &&
  (takesNewest(config) || resume !== undefined) &&
  missingInResult(output.finished, config).length === 0;

/** Whether a result is that of a run that ended before its last step, and would end there again. */
const staysStopped = (
  { earlyStopping }: NonNullable<OutputContents["finished"]>,
  { early_stopping_patience: patience }: ResolvedConfig,
): boolean => earlyStopping !== undefined && patience !== null && earlyStopping.counter >= patience;

const missingInResult = (
  { settings }: NonNullable<OutputContents["finished"]>,
  config: ResolvedConfig,
): string[] => differingResults(settings, resultSettings(config));

const otherRun = (output: OutputContents, others: readonly string[]) =>
  new LockstepError("E_OUTPUT_DIR_OTHER_RUN", {
    directory: bothPlaces(output),
    found: others.join("; "),
  });

/** Where results and checkpoints are. */
const bothPlaces = ({ directory, place }: OutputContents): string =>
  place === directory ? directory : `${directory} with checkpoint_store ${place}`;

const mismatch = (directory: string, differences: readonly string[]) =>
  new LockstepError("E_RESUME_MISMATCH", { directory, differences: differences.join("; ") });

function noCheckpoint({ place: directory, checkpoints }: OutputContents): LockstepError {
  const problem =
    checkpoints.length === 0
      ? "it holds no checkpoint-N directory"
      : `${checkpoints.map((each) => basename(each.directory)).join(", ")} were not saved by Lockstep`;
  return new LockstepError("E_NO_CHECKPOINT", { directory, problem });
}
