import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { TaskLog } from "#coordinator/task-log";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { checkKeysAreRead, type ResolvedConfig, withChanges } from "#lib/config/index";
import { ewcEntry, generalEntry } from "#coordinator/run-log";
import { engineEnvironment, loadedThreads } from "#lib/core/engine-environment";
import type { GeneralLoss } from "#lib/core/forgetting";
import { slowProducts } from "#lib/core/format";
import type { CreateTrainingEngine, TrainingEngine } from "#lib/core/job";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import type { KeptArray, ShardPiece } from "#lib/core/shard-arrays";
import { EvaluationWatch } from "#lib/objectives/evaluation-watch";
import { gapFigures, type LossGap } from "#lib/objectives/loss-gap";
import { loggedMetrics } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";
import { emaSlot, type LossTerms } from "#lib/optim/index";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { slowdownOf } from "#worker/precision-advice";
import { type DeviceTelemetry, openDeviceTelemetry } from "#worker/telemetry";
import { checkConfig } from "./check-arguments.js";
import { evaluationRules, evaluationSteps, stoppedEarly } from "./evaluation-rules.js";
import { type BestWeights, finishRun } from "./finish.js";
import { besideEngine, memoryLines } from "./memory-lines.js";
import { claimOutputDirectory } from "./output-directory.js";
import { type PreparationHooks, prepareRun } from "./prepare.js";
import type { PreparedRun } from "./prepared-run.js";
import { pushOf } from "./push.js";
import {
  type Run,
  type RunContext,
  type RunOptions,
  type RunResult,
  startRun,
} from "./run-handle.js";
import { beginRun, findStart, type StartedRun } from "./start.js";
import {
  evaluateLocal,
  type LocalEvaluation,
  type LocalOutcome,
  trainLocal,
} from "./train-local.js";

/**
 * Trains in this process, which its engine's calls keep busy from step to step, and saves the model at the
 * end. A run that is stopped saves nothing. The engine is one of the process: its threads, its device and
 * what decides its bits are set in `process.env`, before TensorFlow is loaded.
 *
 * @param given a configuration, or what `prepareRun` made of one, which stays the caller's to close
 */
export function startLocal(given: ResolvedConfig | PreparedRun, options: RunOptions = {}): Run {
  return startRun(options, (context) => runLocal(given, context));
}

/**
 * Prepares a run of this process: opens the model, makes its rows of the data, and plans every step. Where
 * the configuration leaves `bf16` or `fp16` open, the device here decides. Close what it returns.
 */
export async function prepareLocal(
  config: ResolvedConfig,
  { onDetail }: Pick<PreparationHooks, "onDetail"> = {},
): Promise<PreparedRun> {
  checkConfig(config);
  const device = await readDevice(config);
  const { hasBf16Products: bf16, hasFp16Products: fp16, deviceKind: reason } = device;
  return prepareRun(config, {
    ...(onDetail === undefined ? {} : { onDetail }),
    choosePrecision: async () => ({ bf16, fp16, reason }),
  });
}

async function readDevice({ use_cpu: useCpu }: ResolvedConfig): Promise<DeviceTelemetry> {
  const visibleDevices = process.env["CUDA_VISIBLE_DEVICES"];
  const device = await openDeviceTelemetry({ useCpu, visibleDevices });
  device.close();
  return device;
}

const isPrepared = (given: ResolvedConfig | PreparedRun): given is PreparedRun =>
  typeof given === "object" && given !== null && "plan" in given;

async function runLocal(
  given: ResolvedConfig | PreparedRun,
  { bus, stop }: RunContext,
): Promise<RunResult> {
  const config = isPrepared(given) ? given.asked : given;
  checkConfig(config);
  if (isPrepared(given)) given.checkOpen();
  checkKeysAreRead(config, "train-local");
  const push = await pushOf(config);
  const note = (text: string): void => bus.publish({ type: "note", text });
  let lost: Error | undefined;
  const output = await claimOutputDirectory(config.output_dir, {
    onLost: (error) => {
      lost = error;
    },
    onWaiting: note,
    signal: stop,
  }).catch((error: unknown) => {
    if (stop.aborted) return undefined;
    throw error;
  });
  if (output === undefined) return stoppedAfter(0, 0);
  let own: PreparedRun | undefined;
  try {
    const start = await findStart(withChanges(config, { resume_from_checkpoint: null }));
    const onDetail = (detail: string): void =>
      bus.publish({ type: "phase.changed", phase: "preparing", detail });
    for (const line of engineEnvironment(process.env).overruled) note(`warning: ${line}`);
    if (stop.aborted) return stoppedAfter(0, 0);
    const prepared = isPrepared(given) ? given : await prepareLocal(config, { onDetail });
    if (prepared !== given) own = prepared;
    if (stop.aborted) return stoppedAfter(0, 0);
    const { run } = await beginRun(prepared, start);
    bus.publish(run.started);
    const engine = await createEngine(run, note);
    try {
      const isStopped = (): boolean => stop.aborted || lost !== undefined;
      const trained = await train(run, engine, { bus, isStopped });
      if (lost !== undefined) throw lost;
      const { step } = trained.state;
      const isWhole =
        step === run.plan.totalSteps || stoppedEarly(run, trained.state) !== undefined;
      if (!isWhole) return stoppedAfter(step, trained.seconds);
      return await finishRun(
        run,
        { outcome: "finished", isWhole: true, ...trained },
        { bus, push, directory: config.output_dir },
      );
    } finally {
      engine.close();
    }
  } finally {
    await own?.close();
    await output.release();
  }
}

/** Nothing is saved on the way. */
const stoppedAfter = (step: number, seconds: number): RunResult => ({
  ...{ outcome: "interrupted", step, seconds },
  ...{ directory: undefined, mastersSha256: undefined },
});

/** The engine of a run, in this process. */
async function createEngine(
  { config, job, updates }: StartedRun,
  note: (text: string) => void,
): Promise<TrainingEngine> {
  if (config.engine_module === null) setThreads(config, note);
  if (config.bf16 || config.fp16) {
    const slowdown = slowdownOf(config, await readDevice(config), config.threads_per_worker);
    for (const line of slowProducts(slowdown)) note(`warning: ${line}`);
  }
  if (config.use_cpu) process.env["CUDA_VISIBLE_DEVICES"] = "";
  const create = await engineOf(config.engine_module);
  const engine = await create({ ...job, jobId: "local" });
  const { plannedBytes } = engine;
  if (plannedBytes !== undefined) {
    const memory = {
      plannedBytes: plannedBytes + wireSizeBytes(job.layout),
      memoryTotalBytes: memoryTotalBytes(),
      deviceType: "cpu",
    } as const;
    for (const line of memoryLines(memory, besideEngine({ job, updates }))) note(line);
  }
  return engine;
}

/** TensorFlow reads its threads from the environment, once: when it is loaded. */
function setThreads(
  { threads_per_worker: asked }: Pick<ResolvedConfig, "threads_per_worker">,
  note: (text: string) => void,
): void {
  const loaded = loadedThreads();
  if (loaded === undefined) {
    process.env["TF_NUM_INTRAOP_THREADS"] = String(asked);
    process.env["TF_NUM_INTEROP_THREADS"] = "1";
  } else if (loaded !== String(asked)) {
    const has = loaded === "" ? "as many threads as the machine has" : `${loaded} thread(s)`;
    note(
      `warning: threads_per_worker: ${asked} has no effect: TensorFlow was loaded in this process before, with ${has}, and the bits may be those of that number`,
    );
  }
}

/** What makes the engine: TensorFlow's, or another module's default export. */
async function engineOf(module: string | null): Promise<CreateTrainingEngine> {
  if (module === null) return (await import("#lib/tuning/engine")).default;
  const { default: create } = (await import(pathToFileURL(resolve(module)).href)) as {
    readonly default: CreateTrainingEngine;
  };
  return create;
}

interface EvaluationEntry extends LocalEvaluation {
  readonly step: number;
  readonly gap?: LossGap;
}

/** All steps with the evaluations between them and a sample at both ends, told as events. */
async function train(
  run: StartedRun,
  engine: TrainingEngine,
  { bus, isStopped }: Pick<RunContext, "bus"> & { readonly isStopped: () => boolean },
) {
  const { config, plan } = run;
  const { totalSteps } = plan;
  const evaluations: EvaluationEntry[] = [];
  const watch = new EvaluationWatch(evaluationRules(config, run.job));
  let numUpdates = 0;
  let best: BestWeights | undefined;
  const evaluate = (
    step: number,
    terms: LossTerms,
    { isDue = false, shards = [] }: { isDue?: boolean; shards?: readonly ShardPiece[] } = {},
  ): LocalEvaluation | undefined => {
    if (run.data.validation.length === 0) return undefined;
    const startedAt = performance.now();
    const evaluation = evaluateLocal(run, engine, terms);
    const seconds = (performance.now() - startedAt) / 1000;
    const { isBest, gap } = watch.evaluated({ step, ...evaluation }, isDue);
    if (isBest && config.load_best_model_at_end) {
      best = { step, numUpdates, snapshot: keptWeights(shards, best?.snapshot) };
    }
    const { trainLoss, warning } = gap ?? {};
    evaluations.push({ step, ...evaluation, ...(gap === undefined ? {} : { gap }) });
    const ofTraining = trainLoss === undefined ? {} : { trainLoss };
    bus.publish({ type: "evaluation.completed", step, seconds, ...evaluation, ...ofTraining });
    if (warning !== undefined) bus.publish({ type: "note", text: warning });
    return evaluation;
  };
  const general: GeneralLoss[] = [];
  const evaluateGeneral = (step: number): void => {
    const batches = run.data.general?.validation ?? [];
    if (batches.length === 0 || general.at(-1)?.step === step) return;
    const startedAt = performance.now();
    const { loss, weight } = evaluateLocal(run, engine, undefined, batches);
    const seconds = (performance.now() - startedAt) / 1000;
    const before = general[0]?.loss;
    const figure: GeneralLoss = { step, loss, ...(before === undefined ? {} : { before }) };
    general.push(figure);
    bus.publish({ type: "general.evaluated", ...figure, weight, seconds });
  };
  const { everySteps, delaySteps } = evaluationSteps(config, plan);
  bus.publish({ type: "phase.changed", phase: "training" });
  const startedAt = performance.now();
  const outcome = await trainLocal(run, engine, {
    onStart: async (terms) => {
      if (config.eval_on_start) evaluate(0, terms);
      evaluateGeneral(0);
      await generateSample(run, engine, 0, bus);
    },
    onFisher: (measured) => bus.publish({ type: "fisher.measured", ...measured }),
    onStep: ({ seconds, notes, ...figures }, { terms, shards }) => {
      const { step } = figures;
      watch.stepCompleted(figures.loss, figures.tasks);
      if (Number.isFinite(figures.gradientNorm)) numUpdates += 1;
      const numRows = plan.rowsIn(step - 1);
      const numTokens = plan.tokensIn?.(step - 1) ?? numRows * run.job.sequenceLength;
      bus.publish({
        ...{ type: "step.completed", totalSteps, epoch: plan.epochAt(step), ...figures },
        ...{ numRows, numTokens, stepSeconds: seconds, tokensPerSecond: numTokens / seconds },
        // Nothing is exchanged.
        syncSeconds: 0,
      });
      for (const text of notes) bus.publish({ type: "note", text });
      const isDue = everySteps > 0 && step % everySteps === 0 && step >= delaySteps;
      const evaluation =
        isDue || (config.eval_on_end && step === totalSteps)
          ? evaluate(step, terms, { isDue, shards })
          : undefined;
      if (isDue || step === totalSteps) evaluateGeneral(step);
      return isDue ? evaluation : undefined;
    },
    isStopped: () => isStopped() || watch.stop !== undefined,
  });
  const { length: step } = outcome.steps;
  const { stop } = watch;
  if (stop !== undefined && step < totalSteps) {
    const text = `stops early after step ${step} of ${totalSteps}: ${stop}`;
    bus.publish({ type: "note", text });
  }
  if (step === totalSteps || stop !== undefined) await generateSample(run, engine, step, bus);
  return {
    snapshot: outcome.shards,
    ...(best === undefined ? {} : { best }),
    state: { ...stateOf(run, outcome, { evaluations, general }), ...watch.state },
    mastersSha256: outcome.mastersSha256,
    seconds: (performance.now() - startedAt) / 1000,
  };
}

/** The continuation of `sample_prompt`. */
async function generateSample(
  { sample, model: { tokenizer } }: PreparedRun,
  engine: TrainingEngine,
  step: number,
  bus: InProcessEventBus,
): Promise<void> {
  if (sample === undefined) return;
  const tokens = engine.generate(sample.prompt, sample.maxNewTokens, sample.endTokenIds);
  const text = await tokenizer.decode(tokens, { skipSpecialTokens: true });
  const { promptText: prompt, isChat } = sample;
  bus.publish({ type: "sample.generated", step, prompt, text, ...(isChat ? { isChat } : {}) });
}

/** The masters of now, and their average where there is one: training goes on with its own. */
function keptWeights(shards: readonly ShardPiece[], into: Snapshot = []): Snapshot {
  return shards.map(({ range, masters, states }, shard) => {
    const copy = (values: Float32Array, kept: KeptArray | undefined): Float32Array => {
      const copied = kept instanceof Float32Array ? kept : new Float32Array(values.length);
      copied.set(values);
      return copied;
    };
    const before = into[shard];
    const average = states[emaSlot];
    return {
      range,
      masters: copy(masters, before?.masters),
      states: average === undefined ? {} : { [emaSlot]: copy(average, before?.states[emaSlot]) },
    };
  });
}

const finiteOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** What trainer_state.json tells of the run. */
function stateOf(
  run: PreparedRun,
  { steps, numUpdates }: LocalOutcome,
  {
    evaluations,
    general,
  }: {
    readonly evaluations: readonly EvaluationEntry[];
    readonly general: readonly GeneralLoss[];
  },
): CheckpointState {
  const { plan, job } = run;
  const numTokens = (step: number): number =>
    plan.tokensIn?.(step) ?? plan.rowsIn(step) * job.sequenceLength;
  const taskLog = new TaskLog();
  const taskEntry = (tasks: LocalOutcome["steps"][number]["tasks"]) => {
    taskLog.step(tasks);
    return taskLog.entry();
  };
  const trained = steps.map((made) => ({
    epoch: plan.epochAt(made.step),
    grad_norm: finiteOrNull(made.gradientNorm),
    learning_rate: made.learningRate,
    ...ewcEntry(made),
    loss: finiteOrNull(made.loss),
    ...taskEntry(made.tasks),
    ...Object.fromEntries(
      Object.entries(made.metrics ?? {}).map(([key, value]) => [key, finiteOrNull(value)]),
    ),
    step: made.step,
  }));
  const evaluated = evaluations.map(({ step, loss, metrics, gap }) => ({
    epoch: plan.epochAt(step),
    eval_loss: finiteOrNull(loss),
    ...loggedMetrics(jobMetrics(job), metrics),
    ...gapFigures(loss, gap),
    step,
  }));
  const measured = general.map((figure) => ({
    epoch: plan.epochAt(figure.step),
    ...generalEntry(figure),
    step: figure.step,
  }));
  return {
    step: steps.length,
    numUpdates,
    epoch: plan.epochAt(steps.length),
    numInputTokens: steps.reduce((sum, { step }) => sum + numTokens(step - 1), 0),
    // An evaluation comes after the step that it is of.
    logHistory: [...trained, ...evaluated, ...measured].sort((a, b) => a.step - b.step),
  };
}
