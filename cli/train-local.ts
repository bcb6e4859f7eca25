/** `lockstep train-local`: the run of run/train-local.ts, told line by line. */
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";
import { evaluationDelaySteps, intervalSteps, loadConfig, printConfig } from "#lib/config/index";
import { type CreateTrainingEngine, type TrainingEngine } from "#lib/core/job";
import { engineEnvironment } from "#lib/core/engine-environment";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import { precisionAdvice } from "#worker/precision-advice";
import { openDeviceTelemetry } from "#worker/telemetry";
import { memoryLines } from "#run/memory-lines";
import { slowBf16 } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { objectiveOf } from "#lib/objectives/index";
import { isLogged, loggedMetrics } from "#lib/objectives/metrics";
import { claimOutputDirectory } from "#run/output-directory";
import { type PreparedRun, prepareRun } from "#run/prepare";
import { pushOf } from "#run/push";
import { markFinished, saveFinalModel } from "#run/files";
import { beginRun, findStart } from "#run/start";
import {
  evaluateLocal,
  type LocalEvaluation,
  type LocalOutcome,
  trainLocal,
} from "#run/train-local";
import { exitCodes, onStopSignals } from "./stop-signals.js";

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
      const evaluation = evaluateLocal(run, engine);
      evaluations.push({ step, ...evaluation });
      // What follows from the loss is not said beside it.
      const figures = objectiveOf(run.job.objective.kind)
        .metrics.filter(isLogged)
        .map(({ key, label, digits }) => `, ${label} ${evaluation.metrics[key]?.toFixed(digits)}`);
      say(`validation loss ${evaluation.loss.toFixed(4)}${figures.join("")}`);
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
  const numRows = steps.reduce((sum, { step }) => sum + plan.rowsIn(step - 1), 0);
  const trained = steps.map(({ step, loss, learningRate, gradientNorm }) => ({
    epoch: plan.epochAt(step),
    grad_norm: finiteOrNull(gradientNorm),
    learning_rate: learningRate,
    loss: finiteOrNull(loss),
    step,
  }));
  const objective = objectiveOf(job.objective.kind);
  const evaluated = evaluations.map(({ step, loss, metrics }) => ({
    epoch: plan.epochAt(step),
    eval_loss: finiteOrNull(loss),
    ...loggedMetrics(objective, metrics),
    step,
  }));
  return {
    step: steps.length,
    numUpdates,
    epoch: plan.epochAt(steps.length),
    numInputTokens: numRows * job.sequenceLength,
    // An evaluation comes after the step that it is of.
    logHistory: [...trained, ...evaluated].sort((a, b) => a.step - b.step),
  };
}
