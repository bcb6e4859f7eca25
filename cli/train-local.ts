/**
 * The whole run in one process, to be read in one sitting: load, batch, gradient, sum, step, save.
 *
 * It uses the cluster's modules, its gradient groups, its threads and its rounding on the wire, so it
 * ends with the same bits as any number of workers. Start reading here.
 */
import { loadConfig, printConfig } from "#lib/core/config/index";
import { type ClassificationScores, ClassCounts } from "#lib/core/classification-scores";
import { type LossSum, rowTargets, type TokenBatch, type TrainingEngine } from "#lib/core/job";
import { engineEnvironment } from "#lib/core/engine-environment";
import { mastersSha256 } from "#lib/core/masters-hash";
import { shardRanges, wireOffsetBytes, wireSizeBytes } from "#lib/core/parameter-layout";
import { passPieces, readWireRange, sharedWireSpace } from "#lib/core/wire-space";
import { clipCoefficient, ShardArithmetic, shardsNeeded, totalNorm } from "#lib/optim/index";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { precisionAdvice } from "#worker/precision-advice";
import { openDeviceTelemetry } from "#worker/telemetry";
import { forgetFinished } from "./finished-run.js";
import { memoryLines } from "./memory-lines.js";
import { slowBf16 } from "./progress/format.js";
import { claimOutputDirectory } from "./output-directory.js";
import { type PreparedRun, prepareRun } from "./prepare.js";
import { pushOf } from "./push.js";
import { saveFinalModel } from "./run-files.js";

export interface LocalStep {
  /** Updates made, this one included. */
  readonly step: number;
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly seconds: number;
}

export interface LocalOutcome {
  readonly steps: readonly LocalStep[];
  readonly mastersSha256: string;
  readonly shards: readonly ShardArithmetic[];
}

export interface LocalHooks {
  /** After the gradients of a step are summed, before the update changes the masters. */
  readonly onGradients?: (step: number, shards: readonly ShardArithmetic[]) => Promise<void>;
  readonly onStep?: (step: LocalStep) => void;
}

/** Trains `numSteps` steps of a prepared run, all of them by default. */
export async function trainLocal(
  run: PreparedRun,
  engine: TrainingEngine,
  hooks: LocalHooks = {},
  numSteps: number = run.plan.totalSteps,
): Promise<LocalOutcome> {
  const { config, plan } = run;
  const { learningRateAt, maxGradNorm, ...hyperparameters } = run.optimizer;
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
    const learningRate = learningRateAt(step);
    for (const shard of shards) {
      shard.applyAdamW({
        ...hyperparameters,
        learningRate,
        updateNumber: step + 1,
        gradientScale: clipCoefficient(gradientNorm, maxGradNorm),
      });
    }
    publish();

    const seconds = (performance.now() - startedAt) / 1000;
    steps.push({ step: step + 1, loss: nllSum / numTokens, learningRate, gradientNorm, seconds });
    hooks.onStep?.(steps[step] as LocalStep);
  }
  await Promise.all(shards.map(async (shard) => shard.close()));
  const pieces = shards.map(({ range, masters }) => ({ start: range.start, masters }));
  return { steps, mastersSha256: mastersSha256(layout, pieces), shards };
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
  const { config, warnings } = await loadConfig(args);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(printConfig(config));
  const push = await pushOf(config);
  const releaseOutput = await claimOutputDirectory(config.output_dir);
  await forgetFinished(config.output_dir);
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  for (const line of engineEnvironment(process.env).overruled) say(`warning: ${line}`);
  const device = await openDeviceTelemetry({
    useCpu: config.use_cpu,
    visibleDevices: process.env["CUDA_VISIBLE_DEVICES"],
  });
  device.close();
  const run = await prepareRun(config, {
    onDetail: say,
    choosePrecision: async () => ({ bf16: device.hasBf16Products, reason: device.deviceKind }),
  });
  for (const line of run.started.dataLines ?? []) say(line);
  try {
    // TensorFlow reads its threads from the environment when the engine is loaded.
    process.env["TF_NUM_INTRAOP_THREADS"] = String(config.threads_per_worker);
    process.env["TF_NUM_INTEROP_THREADS"] = "1";
    if (run.config.bf16) {
      const { bf16Slowdown } = precisionAdvice(device, config.threads_per_worker);
      if (bf16Slowdown !== undefined) say(`warning: ${slowBf16(bf16Slowdown)}`);
    }
    const { default: createEngine } = await import("#lib/tuning/engine");
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
    const outcome = await trainLocal(run, engine, {
      onStep: ({ step, loss, learningRate, gradientNorm, seconds }) =>
        process.stdout.write(
          `step ${step}/${run.plan.totalSteps}  loss ${loss.toFixed(4)}  ` +
            `lr ${learningRate.toExponential(3)}  grad norm ${gradientNorm.toFixed(3)}  ${seconds.toFixed(2)} s\n`,
        ),
    });
    if (run.validation.length > 0) {
      const { loss, scores } = evaluateLocal(run, engine);
      const scored =
        scores === undefined
          ? ""
          : `, accuracy ${scores.accuracy.toFixed(4)}, macro-F1 ${scores.macroF1.toFixed(4)}`;
      process.stdout.write(`validation loss ${loss.toFixed(4)}${scored}\n`);
    }
    const { directory } = await saveFinalModel(run, outcome.shards, stateOf(run, outcome.steps));
    process.stdout.write(`saved ${directory}\nmasters sha256 ${outcome.mastersSha256}\n`);
    engine.close();
    const url = await push?.(say);
    if (url !== undefined) say(`pushed to ${url}`);
    return 0;
  } finally {
    await run.close();
    await releaseOutput();
  }
}

/** What trainer_state.json tells of the run. */
function stateOf(run: PreparedRun, steps: readonly LocalStep[]) {
  const { plan, job } = run;
  const numSamples = steps.reduce((sum, { step }) => sum + plan.samplesIn(step - 1), 0);
  return {
    step: steps.length,
    numUpdates: steps.length,
    epoch: plan.epochAt(steps.length),
    numInputTokens: numSamples * job.sequenceLength,
    logHistory: steps.map(({ step, loss, learningRate, gradientNorm }) => ({
      epoch: plan.epochAt(step),
      grad_norm: gradientNorm,
      learning_rate: learningRate,
      loss,
      step,
    })),
  };
}
