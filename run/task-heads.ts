import type { ModelWeights } from "#lib/checkpoint/model-weights";
import { counted, withCommas } from "#lib/core/format";
import type { TaskJob } from "#lib/core/job";
import { LockstepError } from "#lib/core/errors/index";
import type { ResolvedConfig } from "#lib/config/index";
import { taskPrefix, tasksFolder } from "#lib/core/task-heads";
import { objectiveOf } from "#lib/objectives/index";
import { parametersKindOf, type TaskModel } from "#lib/parameters/index";
import { newHead } from "./classifier.js";
import type { DataModel } from "./data-model.js";
import type { LearntTask } from "./prepare-tasks.js";

/** What of a task decides its head; it has one where it has labels. */
export type HeadedTask = Pick<LearntTask, "name" | "labels" | "objective">;

/** The head of a task beside that of the run's model. */
export interface TaskHead extends TaskModel {
  /** Weights of the checkpoint that those of the head begin as, by their names: BERT's pooler. */
  readonly copies: ReadonlyMap<string, string>;
  /** Place of the task. */
  readonly index: number;
  readonly newWeights: ReadonlyMap<string, Float32Array>;
  readonly weights: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

/**
 * The task that the run's model itself is of: the first that learns texts, else the first. A model that continues
 * texts keeps its own head, and so does a classifier.
 */
export function mainTask(tasks: readonly Pick<LearntTask, "labels">[]): number {
  return Math.max(
    0,
    tasks.findIndex(({ labels }) => labels === undefined),
  );
}

/**
 * Heads of their own for tasks with labels, over one backbone. They begin as the head of a new classifier does: with
 * what the checkpoint has of a pooler, else each with random numbers of its own.
 *
 * @param tasks in their order; the main one has the run's model
 * @throws E_MODEL_UNSUPPORTED, E_CONFIG_CONFLICT
 */
export function taskHeads(
  { modelConfig, context }: Pick<DataModel, "modelConfig" | "context">,
  tasks: readonly HeadedTask[],
  seed: number,
  weights: Pick<ModelWeights, "has" | "info">,
): readonly TaskHead[] {
  const main = mainTask(tasks);
  return tasks.flatMap((task, index): TaskHead[] => {
    const { name = "", labels, objective } = task;
    if (labels === undefined) return [];
    const problemType = objectiveOf(objective.kind).head?.problemType ?? objective.kind;
    if (index === main) return [{ task: name, index, ...ofMain }];
    const { head, configChanges, isOfBase, newWeights } = newHead(modelConfig, {
      ...{ labels, problemType, padTokenId: context.paddingTokenId, seed },
      firstStream: index * streamsPerTask,
    });
    const prefix = taskPrefix(name);
    const copied = head.filter(
      ({ name: own, shape }) =>
        isOfBase(own) && weights.has(own) && weights.info(own).shape.join() === shape.join(),
    );
    const copies = new Map(copied.map(({ name: own }) => [prefix + own, own]));
    const drawn = [...newWeights].map(([own, values]) => [prefix + own, values] as const);
    return [
      {
        ...{ task: name, index, prefix, configChanges },
        isOfBase,
        weights: head.map(({ name: own, shape }) => ({ name: prefix + own, shape })),
        newWeights: new Map(drawn.filter(([own]) => !copies.has(own))),
        copies,
      },
    ];
  });
}

/** Tensors of a head that is drawn, at most. */
const streamsPerTask = 1024;

const ofMain = {
  ...{ prefix: "", configChanges: {}, isOfBase: () => true },
  ...{ weights: [], newWeights: new Map<string, Float32Array>() },
  copies: new Map<string, string>(),
};

/** What workers are told of the tasks, with their heads. */
export const withHeads = (
  tasks: readonly TaskJob[],
  heads: readonly TaskHead[],
): readonly TaskJob[] =>
  tasks.map((task, index) => {
    const head = heads.find((one) => one.index === index && one.prefix !== "");
    if (head === undefined) return task;
    const { prefix, configChanges } = head;
    return { ...task, head: { prefix, configChanges } };
  });

/** @throws E_CONFIG_CONFLICT where what is trained is saved beside a model, and not as one */
export function refuseAdapters(config: ResolvedConfig, heads: readonly TaskHead[]): void {
  const { saves, name } = parametersKindOf(config);
  const [first] = heads;
  if (first === undefined || saves !== "adapter") return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: `finetuning_type and tasks.${first.task}`,
    reason: `each task with labels is saved as a model of its own, and ${name} saves an adapter; tasks with labels go with full, freeze and bitfit`,
  });
}

/** What a person is told of the tasks' models before the run. */
export function describeHeads(
  heads: readonly TaskHead[],
  numParameters: number,
): readonly string[] {
  if (heads.length === 0) return [];
  const names = heads.map(({ task }) => task);
  const others = heads.filter(({ prefix }) => prefix !== "").length;
  const size =
    others === 0
      ? ""
      : `, ${counted(others, "whole model")} of some ${withCommas(numParameters)} parameters more`;
  return [
    `${names.join(", ")}: heads of their own over one backbone, saved in ${tasksFolder}/NAME of output_dir${size}`,
  ];
}
