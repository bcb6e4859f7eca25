/**
 * The whole run in one process, to be read in one sitting: load, batch, gradient, sum, step, save.
 *
 * It uses the cluster's modules, its gradient groups, its threads and its rounding on the wire, so it
 * ends with the same bits as any number of workers. Start reading here.
 */
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";
import {
  evaluationDelaySteps,
  intervalSteps,
  loadConfig,
  printConfig,
} from "#lib/core/config/index";
import { type ClassificationScores, ClassCounts } from "#lib/core/classification-scores";
import {
  type CreateTrainingEngine,
  type LossSum,
  rowTargets,
  type TokenBatch,
  type TrainingEngine,
} from "#lib/core/job";
import { engineEnvironment } from "#lib/core/engine-environment";
import { mastersSha256 } from "#lib/core/masters-hash";
import { shardRanges, wireOffsetBytes, wireSizeBytes } from "#lib/core/parameter-layout";
import { passPieces, readWireRange, sharedWireSpace } from "#lib/core/wire-space";
import { ShardArithmetic, shardsNeeded, totalNorm, UpdateRule } from "#lib/optim/index";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { precisionAdvice } from "#worker/precision-advice";
import { openDeviceTelemetry } from "#worker/telemetry";
import { memoryLines } from "./memory-lines.js";
import { slowBf16 } from "./progress/format.js";
import { printable } from "./progress/text.js";
import { claimOutputDirectory } from "./output-directory.js";
import { type PreparedRun, prepareRun } from "./prepare.js";
import { pushOf } from "./push.js";
import { markFinished, saveFinalModel } from "./run-files.js";
import { beginRun, findStart } from "./run-start.js";
import { exitCodes, onStopSignals } from "./stop-signals.js";

export interface LocalStep {
  /** Steps made, this one included. */
  readonly step: number;
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly seconds: number;
}

export interface LocalOutcome {
  readonly steps: readonly LocalStep[];
  /** Fewer than steps where a gradient was not finite. */
  readonly numUpdates: number;
  readonly mastersSha256: string;
  readonly shards: readonly ShardArithmetic[];
}

export interface LocalHooks {
  /** After the gradients of a step are summed, before the update changes the masters. */
  readonly onGradients?: (step: number, shards: readonly ShardArithmetic[]) => Promise<void>;
  /** Before the first step, when the engine has all weights. */
  readonly onStart?: () => Promise<void>;
  /** After the update, when the engine has the new weights. */
  readonly onStep?: (step: LocalStep) => void;
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
  const updates = new UpdateRule(run.optimizer);
  const { layout } = run.job;

  // Float32 masters and AdamW moments, in as many ranges as memories of WebAssembly are needed: one, for a
  // model of less than 200M parameters. The bits are the same for any number.
  const shards: ShardArithmetic[] = [];
  for (const range of shardRanges(layout, shardsNeeded(layout))) {
    const shard = await ShardArithmetic.create(layout, range, { withThread: true });
    await run.loadMasters(range, shard.masters);
    shards.push(shard);
  }
  // The whole parameter space as it travels: parameters one way, gradients the other.
  const parameters = shards.length === 1 ? undefined : sharedWireSpace(layout);
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

  const steps: LocalStep[] = [];
  try {
    const { loadFrozen } = run;
    if (run.job.lora !== undefined && loadFrozen !== undefined) {
      const { frozen } = run.job.lora;
      await passPieces(
        frozen,
        async (range, into) => readWireRange(frozen, range, loadFrozen, into),
        (piece, wireBytes) => engine.loadFrozen?.(piece, wireBytes),
      );
    }
    publish();
    await hooks.onStart?.();
    for (let step = 0; step < numSteps; step++) {
      const startedAt = performance.now();
      // One normaliser for the whole step: never a mean of means.
      const numTokens = plan.supervisedTokens(step);
      let nllSum = 0;
      const blockSums: number[] = [];
      for (let group = 0; group < config.gradient_groups; group++) {
        const micro = plan.microBatches(step, group);
        nllSum += accumulateGroup(engine, micro, 1 / numTokens, gradients).nllSum;
        const isLast = group === config.gradient_groups - 1;
        for (const shard of shards) {
          const wire = gradients.subarray(...wireRange(shard));
          if (isLast) blockSums.push(...shard.addLastGroup(wire, group === 0));
          else shard.addGroup(wire, group === 0);
        }
      }
      await hooks.onGradients?.(step, shards);

      const gradientNorm = totalNorm(blockSums);
      const { learningRate } = updates;
      const loss = nllSum / numTokens;
      // A gradient that is not finite is left out: masters and parameters stay as they are.
      const update = updates.next({ step, loss, norm: gradientNorm });
      if (update !== undefined) {
        for (const shard of shards) shard.applyAdamW(update);
        publish();
        updates.made();
      }

      const seconds = (performance.now() - startedAt) / 1000;
      steps.push({ step: step + 1, loss, learningRate, gradientNorm, seconds });
      hooks.onStep?.(steps[step] as LocalStep);
      // The engine's calls block: signals are delivered in between.
      await new Promise((continued) => setImmediate(continued));
      if (hooks.isStopped?.() === true) break;
    }
  } finally {
    await Promise.all(shards.map(async (shard) => shard.close()));
  }
  const pieces = shards.map(({ range, masters }) => ({ start: range.start, masters }));
  const { numUpdates } = updates;
  return { steps, numUpdates, mastersSha256: mastersSha256(layout, pieces), shards };
}

function accumulateGroup(
  engine: TrainingEngine,
  batches: readonly TokenBatch[],
  gradScale: number,
  gradients: Uint8Array,
): LossSum {
  const sum = { nllSum: 0, numTokens: 0 };
  batches.forEach((batch, index) => {
    const last = index === batches.length - 1;
    const part = engine.accumulate(batch, gradScale, index === 0, last ? gradients : undefined);
    sum.nllSum += part.nllSum;
    sum.numTokens += part.numTokens;
  });
  return sum;
}

export interface LocalEvaluation {
  /** Mean per supervised token, or per row of a classifier, nats. */
  readonly loss: number;
  /** Of a classifier. */
  readonly scores?: ClassificationScores;
}

/** Loss and scores over the validation batches. */
export function evaluateLocal(run: PreparedRun, engine: TrainingEngine): LocalEvaluation {
  const counts = run.labels === undefined ? undefined : new ClassCounts(run.labels.length);
  let nllSum = 0;
  let numTokens = 0;
  for (const batch of run.validation) {
    const part = engine.evaluate(batch);
    nllSum += part.nllSum;
    numTokens += part.numTokens;
    if (part.predictions !== undefined) counts?.add(rowTargets(batch), part.predictions);
  }
  const loss = nllSum / numTokens;
  return counts === undefined ? { loss } : { loss, scores: counts.scores() };
}

/** `lockstep train-local CONFIG.yaml [--key value ...]`. Returns the exit code. */
export async function trainLocalCommand(args: string[]): Promise<number> {
  const { config, warnings } = await loadConfig(args, "train-local");
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(printConfig(config));
  const push = await pushOf(config);
  const releaseOutput = await claimOutputDirectory(config.output_dir);
  const start = await findStart({ ...config, resume_from_checkpoint: null });
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  for (const line of engineEnvironment(process.env).overruled) say(`warning: ${line}`);
  const device = await openDeviceTelemetry({
    useCpu: config.use_cpu,
    visibleDevices: process.env["CUDA_VISIBLE_DEVICES"],
  });
  device.close();
  const prepared = await prepareRun(config, {
    onDetail: say,
    choosePrecision: async () => ({ bf16: device.hasBf16Products, reason: device.deviceKind }),
  });
  const signals = onStopSignals({
    onFirst: () => {
      say("stopping after this step; a second signal exits at once");
      return true;
    },
    onSecond: () => {},
    onUserSignal: (signal) => {
      if (config.user_signal === "stop") return false;
      say(`${signal}: going on; train-local saves the finished model alone`);
      return true;
    },
  });
  try {
    const { run } = await beginRun(prepared, start);
    for (const line of run.started.dataLines ?? []) say(line);
    // TensorFlow reads its threads from the environment when the engine is loaded.
    process.env["TF_NUM_INTRAOP_THREADS"] = String(config.threads_per_worker);
    process.env["TF_NUM_INTEROP_THREADS"] = "1";
    if (run.config.bf16) {
      const { bf16Slowdown } = precisionAdvice(device, config.threads_per_worker);
      if (bf16Slowdown !== undefined) say(`warning: ${slowBf16(bf16Slowdown)}`);
    }
    if (config.use_cpu) process.env["CUDA_VISIBLE_DEVICES"] = "";
    const createEngine = await engineOf(config.engine_module);
    const engine = await createEngine({ ...run.job, jobId: "local" });
    const { plannedBytes } = engine;
    if (plannedBytes !== undefined) {
      const memory = {
        plannedBytes: plannedBytes + wireSizeBytes(run.job.layout),
        memoryTotalBytes: memoryTotalBytes(),
        deviceType: "cpu",
      } as const;
      const others = { numWorkers: 1, numParameters: run.job.layout.numElements };
      for (const line of memoryLines(memory, others)) process.stdout.write(`${line}\n`);
    }
    say(`training ${run.runName}`);
    const { gradient_groups: numGroups } = config;
    if (numGroups > 1)
      say(`${numGroups} gradient groups a step, as of several workers, in one process`);
    const evaluations: EvaluationEntry[] = [];
    const evaluate = (step: number): void => {
      if (run.validation.length === 0) return;
      const { loss, scores } = evaluateLocal(run, engine);
      evaluations.push({ step, loss, ...(scores === undefined ? {} : { scores }) });
      const scored =
        scores === undefined
          ? ""
          : `, accuracy ${scores.accuracy.toFixed(4)}, macro-F1 ${scores.macroF1.toFixed(4)}`;
      say(`validation loss ${loss.toFixed(4)}${scored}`);
    };
    const { totalSteps, stepsPerEpoch } = run.plan;
    const everySteps = intervalSteps(config, "eval", totalSteps, stepsPerEpoch);
    const delaySteps = evaluationDelaySteps(config, stepsPerEpoch);
    const outcome = await trainLocal(run, engine, {
      onStart: async () => {
        if (config.eval_on_start) evaluate(0);
        await sayWhatFollows(run, engine, say);
      },
      onStep: ({ step, loss, learningRate, gradientNorm, seconds }) => {
        say(
          `step ${step}/${totalSteps}  loss ${loss.toFixed(4)}  ` +
            `lr ${learningRate.toExponential(3)}  grad norm ${gradientNorm.toFixed(3)}  ${seconds.toFixed(2)} s` +
            (Number.isFinite(gradientNorm) ? "" : "  no update: the gradient is not finite"),
        );
        const isDue = everySteps > 0 && step % everySteps === 0 && step >= delaySteps;
        if (isDue || (config.eval_on_end && step === totalSteps)) evaluate(step);
      },
      isStopped: () => signals.received() !== undefined,
    });
    const received = signals.received();
    if (received !== undefined && outcome.steps.length < totalSteps) {
      say(
        `stopped after step ${outcome.steps.length} of ${totalSteps}; nothing is saved: train-local saves the finished model alone, lockstep train saves where it stops`,
      );
      return exitCodes[received];
    }
    await sayWhatFollows(run, engine, say);
    const state = stateOf(run, outcome, evaluations);
    const { directory } = await saveFinalModel(run, outcome.shards, state);
    say(`${run.adapter === undefined ? "model" : "adapter"} and history saved in ${directory}`);
    say(`masters sha256 ${outcome.mastersSha256} (the trained weights in float32)`);
    engine.close();
    const url = await push?.(say);
    if (url !== undefined) say(`pushed to ${url}`);
    await markFinished(run, state.step);
    return 0;
  } finally {
    signals.remove();
    await prepared.close();
    await releaseOutput();
  }
}

/** The continuation of `sample_prompt`. */
async function sayWhatFollows(
  { sample, tokenizer }: PreparedRun,
  engine: TrainingEngine,
  say: (line: string) => void,
): Promise<void> {
  if (sample === undefined) return;
  const tokens = engine.generate(sample.prompt, sample.maxNewTokens, sample.endTokenIds);
  const text = await tokenizer.decode(tokens, { skipSpecialTokens: true });
  say(`sample: ${printable(sample.promptText)}|${printable(text)}`);
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
}

const finiteOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** What trainer_state.json tells of the run. */
function stateOf(
  run: PreparedRun,
  { steps, numUpdates }: LocalOutcome,
  evaluations: readonly EvaluationEntry[],
) {
  const { plan, job } = run;
  const numSamples = steps.reduce((sum, { step }) => sum + plan.samplesIn(step - 1), 0);
  const trained = steps.map(({ step, loss, learningRate, gradientNorm }) => ({
    epoch: plan.epochAt(step),
    grad_norm: finiteOrNull(gradientNorm),
    learning_rate: learningRate,
    loss: finiteOrNull(loss),
    step,
  }));
  const evaluated = evaluations.map(({ step, loss, scores }) => ({
    epoch: plan.epochAt(step),
    eval_loss: finiteOrNull(loss),
    ...(scores === undefined
      ? {}
      : { eval_accuracy: scores.accuracy, eval_macro_f1: scores.macroF1 }),
    step,
  }));
  return {
    step: steps.length,
    numUpdates,
    epoch: plan.epochAt(steps.length),
    numInputTokens: numSamples * job.sequenceLength,
    // An evaluation comes after the step that it is of.
    logHistory: [...trained, ...evaluated].sort((a, b) => a.step - b.step),
  };
}
