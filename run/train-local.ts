/**
 * The whole run in one process, to be read in one sitting: load, batch, gradient, sum, step.
 *
 * It uses the cluster's modules, its gradient groups, its threads and its rounding on the wire, so it
 * ends with the same bits as any number of workers. Start reading here.
 */
import type { Batch } from "#lib/core/batch";
import type { Metrics, TaskFigures } from "#lib/core/events";
import { jobOfTask, type EvaluatedBatch, type TrainingEngine } from "#lib/core/job";
import { mastersSha256 } from "#lib/core/masters-hash";
import { shardRanges, wireOffsetBytes } from "#lib/core/parameter-layout";
import { passPieces, readWireRange, sharedWireSpace } from "#lib/core/wire-space";
import { objectiveOf } from "#lib/objectives/index";
import { type ScoredBatch, trainingScores } from "#lib/objectives/training-scores";
import { type EvaluatedTask, evaluationFigures } from "#lib/objectives/task-metrics";
import {
  LossTerms,
  openOptimizer,
  ShardArithmetic,
  shardsNeeded,
  StepUpdate,
  type UpdatedShards,
} from "#lib/optim/index";
import { type MeasuredFisher, measureFisherLocal } from "./local-fisher.js";
import type { PreparedRun } from "./prepared-run.js";

export interface LocalStep {
  /** Steps made, this one included. */
  readonly step: number;
  readonly loss: number;
  /** Of a run with several tasks. */
  readonly tasks?: readonly TaskFigures[];
  /** What the objective makes of the step's rows, where it scores training. */
  readonly metrics?: Metrics;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly lossScale?: number;
  /** EWC's, of the weights before the step; `loss` does not have it in it. */
  readonly ewcPenalty?: number;
  /** For a person. */
  readonly notes: readonly string[];
  readonly seconds: number;
}

export interface LocalOutcome {
  readonly steps: readonly LocalStep[];
  /** Fewer than steps where a gradient was not finite. */
  readonly numUpdates: number;
  readonly mastersSha256: string;
  readonly shards: readonly ShardArithmetic[];
}

interface LocalHooks {
  /** After the gradients of a step are summed, before the update changes the masters. */
  readonly onGradients?: (step: number, shards: readonly ShardArithmetic[]) => Promise<void>;
  /** Before the first step, when the engine has all weights. @param terms the weights of the tasks */
  readonly onStart?: (terms: LossTerms) => Promise<void>;
  /** When the Fisher information of EWC is measured, before the first step. */
  readonly onFisher?: (measured: MeasuredFisher) => void;
  /**
   * After the update, when the engine has the new weights.
   * @returns the evaluation that was due, for a schedule that follows one
   */
  readonly onStep?: (
    step: LocalStep,
    now: { readonly terms: LossTerms; readonly shards: readonly ShardArithmetic[] },
  ) => LocalEvaluation | undefined;
  /** Asked after each step whether to stop. */
  readonly isStopped?: () => boolean;
}

/**
 * Trains `numSteps` steps of a prepared run, all of them by default.
 *
 * @throws E_NON_FINITE_GRADIENT
 */
export async function trainLocal(
  run: PreparedRun,
  engine: TrainingEngine,
  hooks: LocalHooks = {},
  numSteps: number = run.plan.totalSteps,
): Promise<LocalOutcome> {
  const { config, plan } = run;
  const { optimizer } = run.updates;
  const { layout } = run.job;

  // Float32 masters and what the optimizer keeps, in as many ranges as memories of WebAssembly are needed:
  // one, for a model of less than 200M parameters. The bits are the same for any number.
  const numShards = shardsNeeded(layout, openOptimizer(optimizer));
  const shards: ShardArithmetic[] = [];
  // The whole parameter space as it travels: parameters one way, gradients the other.
  const parameters = numShards === 1 ? undefined : sharedWireSpace(layout);
  const gradients = sharedWireSpace(layout);
  const wireRange = (shard: ShardArithmetic): [number, number] => [
    wireOffsetBytes(layout, shard.range.start),
    wireOffsetBytes(layout, shard.range.end),
  ];
  const publish = (): void => {
    for (const shard of shards) {
      const published = shard.publish();
      if (parameters === undefined) engine.loadParameters(published);
      else parameters.set(published, wireRange(shard)[0]);
    }
    if (parameters !== undefined) engine.loadParameters(parameters);
  };

  // Sums of squares of the step's gradient, by block.
  let blockSums: number[] = [];
  const updated: UpdatedShards = {
    reduce: async () => blockSums,
    penalise: async (_step, factor) => {
      const distances = shards.flatMap((shard) => [...shard.addPenalty(factor)]);
      return { distances, squares: shards.flatMap((shard) => [...shard.blockSumsOfSquares()]) };
    },
    measure: async (_step, measurement) => shards.flatMap((shard) => shard.measure(measurement)),
    apply: async (_step, update) => {
      for (const shard of shards) shard.apply(update);
      publish();
    },
    discard: async () => {},
  };
  const updates = new StepUpdate(layout, run.updates);

  const steps: LocalStep[] = [];
  try {
    for (const range of shardRanges(layout, numShards)) {
      const shard = await ShardArithmetic.create(layout, range, optimizer, { withThread: true });
      shards.push(shard);
      await run.parameters.loadMasters(range, shard.masters);
    }
    const { frozen } = run.job;
    const { loadFrozen } = run.parameters;
    if (frozen !== undefined && loadFrozen !== undefined) {
      await passPieces(
        frozen,
        async (range, into) => readWireRange(frozen, range, loadFrozen, into),
        (piece, wireBytes) => engine.loadFrozen?.(piece, wireBytes),
      );
    }
    publish();
    await hooks.onStart?.(updates.terms);
    if (run.fisher !== undefined) {
      const measured = await measureFisherLocal(run, engine, { shards, gradients, wireRange });
      hooks.onFisher?.(measured);
    }
    for (let step = 0; step < numSteps; step++) {
      const startedAt = performance.now();
      // One normaliser a task for the whole step: never a mean of means. Most runs have one task.
      const { terms } = updates;
      const lossWeights = plan.lossWeights?.(step) ?? [plan.lossWeight(step)];
      const gradScales = terms.gradScales(lossWeights, updates.lossScale);
      const groups: TaskSum[][] = [];
      const scored: ScoredBatch[] = [];
      blockSums = [];
      for (let group = 0; group < config.gradient_groups; group++) {
        const micro = plan.microBatches(step, group);
        const computed = accumulateGroup(engine, micro, gradScales, gradients);
        groups.push(computed);
        for (const [i, batch] of micro.entries()) scored.push({ ...computed[i], batch });
        const isLast = group === config.gradient_groups - 1;
        for (const shard of shards) {
          const wire = gradients.subarray(...wireRange(shard));
          if (isLast) blockSums.push(...shard.addLastGroup(wire, group === 0));
          else shard.addGroup(wire, group === 0);
        }
      }
      await hooks.onGradients?.(step, shards);

      // Norm, clip, optimizer, publish; a gradient that is not finite is left out.
      const sums = terms.sums(groups);
      const loss = terms.loss(sums);
      const update = await updates.run(updated, { step, loss, sums: () => sums });

      const seconds = (performance.now() - startedAt) / 1000;
      const tasks = terms.figures(sums);
      const metrics = trainingScores(run.job, scored);
      const figures = {
        loss,
        ...(tasks === undefined ? {} : { tasks }),
        ...(metrics === undefined ? {} : { metrics }),
        ...update,
      };
      steps.push({ step: step + 1, ...figures, seconds });
      const now = { terms: updates.terms, shards };
      const evaluation = hooks.onStep?.(steps[step] as LocalStep, now);
      if (evaluation !== undefined) updates.evaluated(evaluation);
      // The engine's calls block: signals are delivered in between.
      await new Promise((continued) => setImmediate(continued));
      if (hooks.isStopped?.() === true) break;
    }
  } finally {
    await Promise.all(shards.map(async (shard) => shard.close()));
  }
  const { numUpdates } = updates;
  return { steps, numUpdates, mastersSha256: mastersSha256(layout, shards), shards };
}

/** The losses of a batch, its task, and what the model said of its rows. */
interface TaskSum extends EvaluatedBatch {
  readonly task: number;
}

/** @param gradScales by task. @returns the sums of the batches */
function accumulateGroup(
  engine: TrainingEngine,
  batches: readonly Batch[],
  gradScales: readonly number[],
  gradients: Uint8Array,
): TaskSum[] {
  return batches.map((batch, index) => {
    const last = index === batches.length - 1;
    const { task = 0 } = batch;
    const gradScale = gradScales[task] as number;
    const into = last ? gradients : undefined;
    return { ...engine.accumulate(batch, gradScale, index === 0, into), task };
  });
}

export interface LocalEvaluation {
  /** Mean over what the objective counts: per supervised token, nats, of a causal model. */
  readonly loss: number;
  readonly metrics: Metrics;
  /** What the loss is a mean over: supervised tokens, or rows of a classifier. */
  readonly weight: number;
}

/** Loss and metrics over batches, by default those for validation. @param terms the weights of the tasks */
export function evaluateLocal(
  { job, data }: PreparedRun,
  engine: TrainingEngine,
  terms: LossTerms = new LossTerms(),
  evaluatedBatches: readonly Batch[] = data.validation,
): LocalEvaluation {
  const evaluated = (job.tasks ?? [undefined]).map((_, task): EvaluatedTask | undefined => {
    const batches = evaluatedBatches.filter((batch) => (batch.task ?? 0) === task);
    if (batches.length === 0) return undefined;
    const { objective } = jobOfTask(job, task);
    const scorer = objectiveOf(objective.kind).scorer?.(objective);
    let lossSum = 0;
    let weight = 0;
    for (const batch of batches) {
      const part = engine.evaluate(batch);
      lossSum += part.lossSum;
      weight += part.weight;
      scorer?.add(batch, part.outputs);
    }
    return { lossSum, weight, scores: scorer?.values() ?? {} };
  });
  return evaluationFigures(job, terms, evaluated);
}
