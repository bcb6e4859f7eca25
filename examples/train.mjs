// Fine-tunes a model of yours on data of yours in this process, with progress from the run's events. Ctrl-C stops
// after the step in progress.
//
//   node examples/train.mjs MODEL DATASET OUTPUT_DIR [MAX_STEPS]

import { isLockstepError, loadConfig, prepareRun, trainLocal } from "lockstep";

const [model, dataset, outputDir, maxSteps] = process.argv.slice(2);
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());

try {
  const { config, warnings } = await loadConfig(
    {
      model_name_or_path: model,
      dataset,
      output_dir: outputDir,
      max_length: 128,
      learning_rate: 1e-4,
      max_steps: maxSteps === undefined ? undefined : Number(maxSteps),
    },
    {},
    { command: "train-local" },
  );
  for (const warning of warnings) console.warn(`warning: ${warning}`);
  const prepared = await prepareRun(config, { onDetail: console.log });
  const run = trainLocal(prepared, { signal: stop.signal });
  for await (const event of run) {
    if (event.type === "note") console.log(event.text);
    if (event.type === "step.completed") {
      console.log(`step ${event.step} of ${event.totalSteps}: loss ${event.loss.toFixed(4)}`);
    }
    if (event.type === "evaluation.completed") console.log(`validation: ${event.loss.toFixed(4)}`);
  }
  await prepared.close();
  const { outcome, directory, step } = await run.outcome;
  console.log(`${outcome} after ${step} steps`, directory ?? "(nothing is saved on the way)");
} catch (error) {
  if (!isLockstepError(error)) throw error;
  console.error(`${error.code}: ${error.message}\n  ${error.hint}`);
  process.exitCode = 1;
}
