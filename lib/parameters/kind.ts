import type { z } from "zod";
import type { TensorValues } from "#lib/checkpoint/elements";
import type { SavedTensor } from "#lib/checkpoint/written-weights";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { FloatDtype, WireDtype } from "#lib/core/dtype";
import type { ParametersJob } from "#lib/core/job";
import type { ParameterLayout, TensorRules, TensorSlot } from "#lib/core/parameter-layout";
import type { LoadValues } from "#lib/core/wire-space";
import type { StartingModel } from "./model.js";

/** A way to choose what a run trains. */
export interface ParametersKind<Fields extends z.ZodRawShape = z.ZodRawShape> {
  /** The value of `finetuning_type` that names it. */
  readonly name: string;
  /** What it is called where its keys are spoken of. */
  readonly title: string;
  /** What is trained, and by which key, for messages about what is not here. */
  readonly summary: string;
  /** The key and the value that turn it on. */
  readonly turnedOnBy: readonly [key: string, value: unknown];
  /** Its keys of the configuration; with another value of one it is another run. */
  readonly fields: Fields;
  /** Keys that ask for what no other kind does: beside another kind they are refused, not left out. */
  readonly demands?: readonly string[];
  /** Keys without effect while a key of the kind is off, by that key. */
  readonly onlyWith?: Readonly<Record<string, readonly string[]>>;
  /** float32: trained matrices travel so in a run of bfloat16 products too. */
  readonly wireDtype?: "float32";
  /** What is saved: a model, or an adapter that its base model has to be there for. */
  readonly saves: "model" | "adapter";
  /** Whether the model sees tensors that are no weights of its own: there is a traced half then. */
  readonly changesForward: boolean;
  /**
   * Tokens that it puts before those of every row, which take positions of the model. With any, a row is one
   * example. @default 0
   */
  addedTokens?(config: z.output<z.ZodObject<Fields>>): number;
  /** Divides a model into what is trained and what stays. */
  choose(
    config: z.output<z.ZodObject<Fields>>,
    model: StartingModel,
    options: ChoiceOptions,
  ): ChosenParameters;
}

export interface ChoiceOptions {
  /** Type in which trained matrices travel. */
  readonly wireDtype: WireDtype;
  /** Type in which frozen matrices travel: that of the products. */
  readonly frozenDtype: WireDtype;
  /** Rates and first updates of trained tensors, as rates.ts and unfreezing.ts read them of the configuration. */
  readonly rules: TensorRules;
  readonly seed: number;
  /** Whether somebody gave a key its value. */
  readonly isGiven: (key: string) => boolean;
}

/** What a run trains. */
export interface ChosenParameters {
  /** What is trained. */
  readonly layout: ParameterLayout;
  /** The model's weights that stay as they are; absent: there are none. */
  readonly frozen?: ParameterLayout;
  readonly job: ParametersJob;
  /** Rate at which training drops inputs of what it adds to the model; absent: nothing is dropped. */
  readonly inputDropout?: number;
  /** Fields of config.json that are others than the model's while it trains. */
  readonly modelChanges?: Readonly<Record<string, unknown>>;
  /** Fills `into` with the first values of a range of what is trained, float32; padding is 0. */
  readonly loadMasters: LoadValues;
  /** The same for the frozen weights. */
  readonly loadFrozen?: LoadValues;
  /** About it, for a person. */
  readonly lines: readonly string[];
  /** By which others find the model that the saved adapter belongs to. */
  readonly adapterBase?: string;
  /** Writes what was learnt into an existing directory. */
  readonly save: (directory: string, content: SavedContent) => Promise<void>;
}

export interface SavedContent {
  /** Elements of a trained tensor; asked for once. */
  readonly valuesOf: (slot: TensorSlot) => TensorValues;
  /** Who may write a trained tensor where it begins; absent: nobody but who saves. */
  readonly keptOf?: ((slot: TensorSlot) => SavedTensor["kept"]) | undefined;
  /** Who writes files of tensors. @default this thread, into local files */
  readonly openTarget?: OpenTarget | undefined;
  readonly dtype: FloatDtype;
  /** Weights of a model beyond this many bytes go into several files. */
  readonly maxShardBytes: number;
}
