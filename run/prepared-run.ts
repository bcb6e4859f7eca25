import type { FisherSource } from "#coordinator/options";
import type { ResolvedConfig, SettledConfig } from "#lib/config/index";
import type { FloatDtype } from "#lib/core/dtype";
import type { RunStarted } from "#lib/core/events";
import type { WorkerJob } from "#lib/core/job";
import type { Tokenizer, TrainingPlan } from "#lib/data/index";
import type { Composition } from "./composition.js";
import type { PreparedData } from "./prepare-data.js";
import type { SampleRequest } from "./sample-request.js";

/** Everything that a run needs before its first step, whoever runs it: a cluster or one process. */
export interface PreparedRun extends Composition {
  readonly config: SettledConfig;
  /** The configuration before the data and the machine settled what it leaves open. */
  readonly asked: ResolvedConfig;
  readonly model: PreparedModel;
  readonly data: Omit<PreparedData, "plan">;
  readonly plan: TrainingPlan;
  readonly job: Omit<WorkerJob, "jobId">;
  /** What the Fisher information is measured on, before the first step; undefined without EWC. */
  readonly fisher: FisherSource | undefined;
  /** What the model continues before and after training; undefined: nothing. */
  readonly sample: SampleRequest | undefined;
  /** How the run is told of when it begins. */
  readonly started: RunStarted;
  /** After it nothing more of the model or the data is read. */
  readonly close: () => Promise<void>;
  /** @throws E_CLOSED */
  readonly checkOpen: () => void;
}

/** The model that is trained. */
export interface PreparedModel {
  /** Of the checkpoint that the run starts from. */
  readonly directory: string;
  readonly tokenizer: Tokenizer;
  readonly numParameters: number;
  /** Without embedding tables: what transformers' estimate of operations counts. */
  readonly numComputedParameters: number;
  /** Type in which weights are saved. */
  readonly saveDtype: FloatDtype;
  /** SHA-256 of the weights that the run starts from, or adds adapters to, by their content. */
  readonly digest: () => Promise<string>;
}
