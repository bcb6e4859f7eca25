import { createHash } from "node:crypto";
import {
  defaultOf,
  objectiveKeys,
  replayShare,
  type ResolvedConfig,
  taskOfEntry,
  withChanges,
} from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TaskJob } from "#lib/core/job";
import { type PlanPart, rowsSha256 } from "#lib/data/index";
import { checkObjectiveKeys } from "./objective.js";
import { type DataContext, type LearntRows, prepareRows } from "./prepare-rows.js";

/** The rows of a task, and what is learnt of them. */
export interface LearntTask extends LearntRows {
  /** Undefined of a run's only one. */
  readonly name: string | undefined;
}

/** Prepares the data of each task of a run, in their order; of most runs there is one. Close their data sets. */
export async function prepareTasks(
  config: ResolvedConfig,
  context: DataContext,
): Promise<readonly [LearntTask, ...LearntTask[]]> {
  const { dataset, eval_dataset: evalDataset, tasks } = config;
  if (tasks === null) {
    return [{ name: undefined, ...(await prepareRows(config, { dataset, evalDataset }, context)) }];
  }
  const prepared: LearntTask[] = [];
  const { observer: _ofOneDataSet, onDetail, ...others } = context;
  try {
    for (const [name, { weight: _weight, share: _share, ...own }] of Object.entries(tasks)) {
      const taskConfig = withChanges(config, given(own));
      const sources = { ...sourcesOf(config, name), isOneOfSeveral: true };
      const rows = await prepareRows(taskConfig, sources, {
        ...others,
        // The head that the model has is the first task's.
        ...(prepared.length === 0 ? {} : { problemType: undefined, knownLabels: [] }),
        onDetail: (detail) => onDetail(`task ${name}: ${detail}`),
      });
      prepared.push({ name, ...rows });
      checkObjectiveKeys(withChanges(withoutObjectiveKeys(config), given(own)), rows.learnt);
    }
    checkSharedKeys(config, prepared);
  } catch (error) {
    for (const task of prepared) task.dataset.close();
    throw error;
  }
  return prepared as [LearntTask, ...LearntTask[]];
}

/** The entries of a task. */
function sourcesOf({ dataset, eval_dataset: evalDataset }: ResolvedConfig, name: string) {
  const isOfTask = (entry: (typeof dataset)[number]): boolean => taskOfEntry(entry) === name;
  return {
    dataset: dataset.filter(isOfTask),
    evalDataset: evalDataset?.filter(isOfTask) ?? null,
  };
}

/** A configuration of one of a run's tasks alone, whose rows are the same. */
export function configOfTask(config: ResolvedConfig, name: string): ResolvedConfig {
  const { weight: _weight, share: _share, ...own } = config.tasks?.[name] ?? {};
  const { dataset, evalDataset } = sourcesOf(config, name);
  return withChanges(config, {
    ...given(own),
    ...{ tasks: null, task_weighting: "fixed", dataset, eval_dataset: evalDataset },
    ...{ replay_probability: null, replay_weight: null },
  });
}

const given = (own: Readonly<Record<string, unknown>>): Partial<ResolvedConfig> =>
  Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined));

const withoutObjectiveKeys = (config: ResolvedConfig): ResolvedConfig =>
  withChanges(
    config,
    Object.fromEntries(
      objectiveKeys.map((key) => [key, defaultOf(key)]),
    ) as Partial<ResolvedConfig>,
  );

/** @throws E_CONFIG_CONFLICT for a key of the whole run that none of its tasks reads */
function checkSharedKeys(config: ResolvedConfig, tasks: readonly LearntTask[]): void {
  for (const key of objectiveKeys) {
    if (config[key] === defaultOf(key) || tasks.some(({ learnt }) => key in learnt.fields))
      continue;
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: `${key} and tasks`,
      reason: `${tasks.map(({ learnt: { kind } }) => kind).join(" and ")} are learnt, and ${key} has no meaning for their losses`,
    });
  }
}

/** What workers are told of the tasks. */
export const taskJobs = (tasks: readonly LearntTask[]): readonly TaskJob[] =>
  tasks.map(({ name = "main", objective, batchFields, dataset }) => ({
    ...{ name, objective, batchFields },
    sequenceLength: dataset.train.rows.sequenceLength,
  }));

/**
 * The share of each task in the rows of a step: those that are given, and by the numbers of their rows what is left
 * for the others. Where all are given they are relative to each other.
 *
 * @param left what replayed rows leave of 1
 */
export function sharesOf(
  { tasks }: ResolvedConfig,
  prepared: readonly LearntTask[],
  left: number,
): readonly number[] {
  const said = prepared.map(({ name }) => (name === undefined ? undefined : tasks?.[name]?.share));
  const sum = said.reduce<number>((total, share) => total + (share ?? 0), 0);
  if (!said.includes(undefined)) return said.map((share) => (left * (share ?? 0)) / sum);
  const numRows = (task: LearntTask): number => task.dataset.train.rows.numRows;
  const open = prepared.filter((_, index) => said[index] === undefined);
  const openRows = open.reduce((total, task) => total + numRows(task), 0);
  return prepared.map(
    (task, index) => left * (said[index] ?? ((1 - sum) * numRows(task)) / openRows),
  );
}

/** What of a step's rows is for those that are not replayed. */
export const shareBesideReplay = (config: ResolvedConfig): number => 1 - (replayShare(config) ?? 0);

/** One digest of the rows of all tasks: that of the rows themselves where there is one. */
export async function tasksSha256(
  tasks: readonly LearntTask[],
  rowsOf: (task: LearntTask) => PlanPart["rows"] | undefined,
): Promise<string | null> {
  const digests: (readonly [string, string | null])[] = [];
  for (const task of tasks) {
    const rows = rowsOf(task);
    digests.push([task.name ?? "", rows === undefined ? null : await rowsSha256(rows)]);
  }
  const [first, ...others] = digests;
  if (others.length === 0 && tasks[0]?.name === undefined) return first?.[1] ?? null;
  if (digests.every(([, digest]) => digest === null)) return null;
  return createHash("sha256").update(JSON.stringify(digests)).digest("hex");
}
