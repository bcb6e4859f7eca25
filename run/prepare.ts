import { resolve } from "node:path";
import { checkBaseDigest } from "#lib/checkpoint/base-digest";
import type { ModelWeights } from "#lib/checkpoint/model-weights";
import { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { checkTiedHead } from "#lib/checkpoint/tied-head";
import {
  type ConfigKey,
  placed,
  placeOf,
  type ResolvedConfig,
  type SettledConfig,
  settleConfig,
} from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { isEmbeddingTable, isTied, tiedEmbeddingName } from "#lib/models/facts";
import { objectiveOf } from "#lib/objectives/index";
import { parametersKindOf, type StartingModel } from "#lib/parameters/index";
import { referencedName } from "#lib/parameters/reference";
import { compose, type Composition } from "./composition.js";
import { type DataModel, openDataModel } from "./data-model.js";
import { runDropout } from "./dropout.js";
import { describeEarlyStopping } from "./evaluation-rules.js";
import { describeFisher, fisherSource } from "./fisher-source.js";
import { openModelWeights } from "./model-weights.js";
import { OpenResources } from "./open-resources.js";
import { choosePrecision, describeChoice, type PrecisionChoice } from "./precision.js";
import { prepareData } from "./prepare-data.js";
import type { PreparedModel, PreparedRun } from "./prepared-run.js";
import { sampleOf } from "./sample-request.js";
import { startedEvent } from "./started-event.js";
import { startDigest, withAdapterSettings } from "./starting-adapter.js";
import { startingModel } from "./starting-model.js";
import { describeTemplateDate, withDateOf } from "./template-date.js";
import { describeHeads, refuseAdapters, taskHeads, withHeads } from "./task-heads.js";
import { workerJob } from "./worker-job.js";

export interface PreparationHooks {
  /** Asked where the configuration leaves it open, when the data is ready. @default this processor */
  readonly choosePrecision?: () => Promise<PrecisionChoice>;
  /** What is being done, for a display. */
  readonly onDetail?: (detail: string) => void;
}

/** Opens the model, tokenises and packs the data set, and plans every step. Loads no TensorFlow. */
export async function prepareRun(
  asked: ResolvedConfig,
  hooks: PreparationHooks = {},
): Promise<PreparedRun> {
  const { onDetail = () => {} } = hooks;
  const opened = await openDataModel(asked, { onDetail });
  refuseAdapterInItsBase(asked, opened);
  const resources = new OpenResources();
  try {
    const weights = await openWeights(opened);
    resources.add(() => weights.close());
    const adapter =
      opened.adapterDirectory === undefined
        ? undefined
        : await AdapterDirectory.open(opened.adapterDirectory);
    if (adapter !== undefined) resources.add(() => adapter.close());
    const { plan, ...prepared } = await prepareData(asked, { ...opened.context, onDetail });
    resources.add(prepared.closeData);
    const heads = taskHeads(opened, prepared.headed, asked.seed, weights);
    const data = { ...prepared, tasks: prepared.tasks && withHeads(prepared.tasks, heads) };
    const choice = await choosePrecision(asked, hooks.choosePrecision);
    const { tokenizer } = opened;
    const dated = withDateOf(tokenizer, asked, opened.date);
    const settled = settleConfig(dated, choice ?? { bf16: false, fp16: false });
    const config = withAdapterSettings(settled, adapter);
    refuseAdapters(config, heads);
    const start = startingModel(config, opened, weights, { ...data, heads, adapter });
    if (adapter !== undefined) await checkBaseDigest(adapter, start.name, start.digest);
    const parts = compose(config, { model: start, data, plan });
    const { isChat } = data;
    const sample = await sampleOf(config, tokenizer, { ...opened.context, isChat });
    const modelConfig = { ...opened.modelConfig, ...start.configChanges };
    const fisher = fisherSource(config, data.general);
    const dropout = runDropout(config, modelConfig, {
      isClassifier: start.isClassifier,
      adapterRate: parts.parameters.inputDropout ?? 0,
      comparesPairs: (data.tasks ?? [data]).some(
        ({ objective }) => objectiveOf(objective.kind).comparesPairs === true,
      ),
    });
    const run = {
      ...{ config, asked, ...parts, data, plan, fisher, sample },
      model: preparedModel(config, { opened, weights, start, parts }),
      job: workerJob(config, modelConfig, { ...parts, data, plan, fisher, sample, dropout }),
      close: () => resources.close(),
      checkOpen: () => {
        if (resources.isClosed) throw new LockstepError("E_CLOSED", { what: "prepared run" });
      },
    };
    const notes = [
      ...describeTemplateDate(config, tokenizer),
      ...parts.parameters.lines,
      ...describeHeads(heads, run.model.numParameters),
      ...dropout.lines,
      ...describeFisher(config, fisher),
      ...describeChoice(choice, asked, config),
      ...describeEarlyStopping(config, { plan, job: run.job }),
    ];
    return { ...run, started: startedEvent(config, run, notes) };
  } catch (error) {
    await resources.close();
    throw placed(error, (key) => placeOf(asked, key as ConfigKey));
  }
}

/** @throws E_CONFIG_CONFLICT */
function refuseAdapterInItsBase(config: ResolvedConfig, { modelDirectory }: DataModel): void {
  const { saves } = parametersKindOf(config);
  if (saves !== "adapter" || resolve(config.output_dir) !== modelDirectory) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "output_dir and model_name_or_path",
    reason: "an adapter in the directory of its base model would replace that model's files",
  });
}

/** @throws E_MODEL_UNSUPPORTED for a tied head with values of its own, and what opening throws */
async function openWeights({ modelDirectory, modelConfig }: DataModel): Promise<ModelWeights> {
  const weights = await openModelWeights(modelDirectory);
  try {
    if (isTied(modelConfig)) await checkTiedHead(weights, tiedEmbeddingName(weights.names()));
    return weights;
  } catch (error) {
    await weights.close();
    throw error;
  }
}

function preparedModel(
  config: SettledConfig,
  {
    opened,
    weights,
    start,
    parts: { parameters },
  }: {
    readonly opened: DataModel;
    readonly weights: ModelWeights;
    readonly start: StartingModel;
    readonly parts: Composition;
  },
): PreparedModel {
  const tensors = [...parameters.layout.tensors, ...(parameters.frozen?.tensors ?? [])].filter(
    ({ name }) => referencedName(name) === undefined,
  );
  const numElements = (isCounted: (name: string) => boolean): number =>
    tensors.reduce((sum, { name, size }) => (isCounted(name) ? sum + size : sum), 0);
  return {
    directory: opened.modelDirectory,
    tokenizer: opened.tokenizer,
    numParameters: numElements(() => true),
    numComputedParameters: numElements((name) => !isEmbeddingTable(name)),
    saveDtype: config.save_dtype === "auto" ? weights.dtype() : config.save_dtype,
    digest: () => startDigest(start),
  };
}
