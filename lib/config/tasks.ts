import { nearestName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import type { DatasetEntry } from "./dataset-entries.js";
import { type ConfigKey, defaultOf, type ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { reservedTaskNames } from "./task-fields.js";

/** A task's own settings. */
export type TaskSettings = NonNullable<ParsedConfig["tasks"]>[string];

type Datasets = readonly (string | DatasetEntry)[];

/** Share of the rows of a step that are replayed where only their weight is given. */
const replayedShare = 0.1;

/** The task that an entry names. */
export const taskOfEntry = (entry: string | DatasetEntry): string | undefined =>
  typeof entry === "string" ? undefined : entry.task;

/**
 * The tasks of a run in the order in which entries name them, each with its settings. Null where no entry names one.
 *
 * @throws E_CONFIG_CONFLICT, E_CONFIG_INVALID
 */
export function resolveTasks(
  parsed: ParsedConfig,
  lists: Readonly<
    { dataset: Datasets } & Record<
      "eval_dataset" | "general_dataset" | "general_eval_dataset",
      Datasets | null
    >
  >,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
): Readonly<Record<string, TaskSettings>> | null {
  const where = given.get("tasks")?.where ?? given.get("dataset")?.where ?? "";
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  for (const key of ["general_dataset", "general_eval_dataset"] as const) {
    const index = (lists[key] ?? []).findIndex((entry) => taskOfEntry(entry) !== undefined);
    if (index < 0) continue;
    conflict(
      `${key}[${index}].task`,
      "general rows are of no task: replay_weight makes one of them",
    );
  }
  const named = lists.dataset.map(taskOfEntry);
  const declared = Object.keys(parsed.tasks ?? {});
  const names = [...new Set([...named.filter((name) => name !== undefined), ...declared])];
  if (names.length === 0) {
    const evaluated = (lists.eval_dataset ?? []).map(taskOfEntry).find((name) => name);
    if (evaluated !== undefined) {
      conflict("eval_dataset and dataset", `task ${evaluated} validates, and nothing trains it`);
    }
    if (parsed.task_weighting !== "fixed") {
      const reason =
        "weights are of tasks, which entries of dataset name: {path: FILE, task: NAME}";
      conflict("task_weighting and dataset", reason);
    }
    return null;
  }
  const unnamed = named.findIndex((name) => name === undefined);
  if (unnamed >= 0) {
    const keys = `dataset[${unnamed}] and tasks`;
    conflict(keys, "each entry says its task where some do: {path: FILE, task: NAME}");
  }
  for (const name of names) {
    if (!/^[A-Za-z][A-Za-z0-9_-]*$/.test(name) || reservedTaskNames.includes(name)) {
      throw new LockstepError("E_CONFIG_INVALID", {
        key: "dataset.task",
        expected: `a name of letters, digits, - and _, which begins with a letter and is not ${reservedTaskNames.join(" or ")}`,
        got: JSON.stringify(name),
        where,
      });
    }
    if (named.includes(name)) continue;
    const nearest = nearestName(name, named as string[]);
    const meant = nearest === undefined ? "" : `; did you mean ${nearest}?`;
    conflict(`tasks.${name} and dataset`, `no entry of dataset has task: ${name}${meant}`);
  }
  const lowerCase = names.map((name) => name.toLowerCase());
  const twin = names.find((_, index) => lowerCase.indexOf(lowerCase[index] ?? "") !== index);
  if (twin !== undefined) {
    const reason = "another task has the same name in other letters, and each may get a directory";
    conflict(`tasks.${twin}`, reason);
  }
  if (names.length === 1) {
    conflict(`tasks.${names[0]}`, "a run of one task has no need of its name: leave it out");
  }
  checkEvaluated(names, lists.eval_dataset, conflict);
  checkShares(parsed.tasks ?? {}, names, conflict);
  checkWeights(parsed, conflict);
  return Object.freeze(
    Object.fromEntries(names.map((name) => [name, Object.freeze({ ...parsed.tasks?.[name] })])),
  );
}

type Conflict = (keys: string, reason: string) => never;

function checkEvaluated(names: readonly string[], list: Datasets | null, conflict: Conflict): void {
  if (list === null) return;
  const evaluated = list.map(taskOfEntry);
  const unnamed = evaluated.findIndex((name) => name === undefined || !names.includes(name));
  if (unnamed >= 0) {
    const reason = `each entry says whose rows it validates: one of ${names.join(", ")}`;
    conflict(`eval_dataset[${unnamed}] and tasks`, reason);
  }
  const missing = names.find((name) => !evaluated.includes(name));
  if (missing !== undefined) {
    const reason = `no entry of eval_dataset has task: ${missing}, and eval_loss is of all tasks`;
    conflict(`eval_dataset and tasks.${missing}`, reason);
  }
}

function checkShares(
  tasks: Readonly<Record<string, TaskSettings>>,
  names: readonly string[],
  conflict: Conflict,
): void {
  const shares = names.map((name) => tasks[name]?.share);
  if (!shares.includes(undefined)) return;
  const given = shares.reduce<number>((sum, share) => sum + (share ?? 0), 0);
  if (given < 1) return;
  const open = names[shares.indexOf(undefined)];
  conflict(
    `tasks.${open} and the shares of other tasks`,
    `they are ${given} of the rows together, which leaves none for ${open}`,
  );
}

function checkWeights(parsed: ParsedConfig, conflict: Conflict): void {
  if (parsed.task_weighting === "fixed") return;
  const weighed = Object.entries(parsed.tasks ?? {}).find(([, { weight }]) => weight !== undefined);
  if (weighed !== undefined) {
    const reason = "with task_weighting uncertainty weights are learnt, and none is given";
    conflict(`tasks.${weighed[0]}.weight and task_weighting`, reason);
  }
}

/** Rules of replayed general rows. @throws E_CONFIG_CONFLICT */
export function checkReplay(parsed: ParsedConfig, hasTasks: boolean): void {
  const { replay_probability: probability, replay_weight: weight } = parsed;
  const key = probability === null ? "replay_weight" : "replay_probability";
  if (probability === null && weight === null) return;
  if (parsed.general_dataset === null) {
    const reason = "replayed rows are those of general_dataset, and there is none";
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: `${key} and general_dataset`, reason });
  }
  if (hasTasks && weight === null) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "replay_probability and tasks",
      reason:
        "of several tasks it is not said in whose mean general rows count: with replay_weight they have one of their own",
    });
  }
}

/** What share of a step's rows are general ones; undefined: none is learnt. */
export const replayShare = ({
  replay_probability: probability,
  replay_weight: weight,
}: Pick<ParsedConfig, "replay_probability" | "replay_weight">): number | undefined =>
  probability ?? (weight === null ? undefined : replayedShare);

/** Rows of several kinds are mixed by their shares, in an order that goes by single rows. */
export function checkSampling(
  { train_sampling_strategy: strategy }: ParsedConfig,
  isMixed: boolean,
): void {
  if (!isMixed || strategy !== "group_by_length") return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "train_sampling_strategy and dataset",
    reason: `rows of several tasks, or replayed ones, are mixed by their shares: ${String(defaultOf("train_sampling_strategy"))} or sequential`,
  });
}
