import {
  adaptedModules,
  type BaseModel,
  isSavedWhole,
  type LoraConfig,
  type LoraPart,
  loraPartOf,
  loraTensorName,
  rankOf,
  scaleOf,
} from "#lib/checkpoint/peft/index";
import type { WireDtype, WireForm } from "#lib/core/dtype";
import {
  buildParameterLayout,
  type FormOf,
  type ParameterLayout,
  type TensorRules,
} from "#lib/core/parameter-layout";
import { frozenLayout } from "./quantization.js";

/** What an engine has to know of a job of adapters, beside its two spaces. */
export interface LoraJob {
  readonly kind: "lora";
  /** By path of the adapted module: the factor of B A x. */
  readonly scales: Readonly<Record<string, number>>;
  /** Whether each module has magnitudes (DoRA). */
  readonly useDora: boolean;
}

type AdapterForm = Pick<LoraJob, "useDora">;

/** The parts of the adapter of each module of a job. */
const partsOf = ({ useDora }: AdapterForm): readonly LoraPart[] =>
  useDora ? ["A", "B", "magnitude"] : ["A", "B"];

/** Names in the trained space of A, B and, with DoRA, the magnitudes of a module. */
export const adapterTensorNames = (form: AdapterForm, path: string): readonly string[] =>
  partsOf(form).map((part) => loraTensorName(path, part));

/** What a job of adapters trains, and what stays. */
interface AdapterLayout {
  readonly trained: ParameterLayout;
  readonly frozen: ParameterLayout;
  readonly job: LoraJob;
  /** Names of trained matrices in an order that their rates do not change. */
  readonly matrices: readonly string[];
}

/**
 * Divides a model's weights into trained and frozen ones. The trained space holds the parts of every
 * adapted module and the weights of `modules_to_save`, by sorted name. Magnitudes decay, as in transformers.
 *
 * @param config complete (see completeLoraConfig)
 * @param wireDtype type in which trained matrices travel
 * @param frozenDtype form in which frozen matrices travel
 * @param loraPlusRatio what multiplies the rate of B, and of vectors, as in peft's create_loraplus_optimizer
 *   (LoRA+, Hayou et al. 2024, arXiv 2402.12354)
 * @throws E_ADAPTER_TARGET
 */
export function layOutAdapter(
  config: LoraConfig,
  model: BaseModel,
  {
    wireDtype,
    frozenDtype,
    rules: { rateOf = () => 1, firstUpdatesOf } = {},
    loraPlusRatio = 1,
  }: {
    readonly wireDtype: WireDtype;
    readonly frozenDtype: WireForm | FormOf;
    readonly rules?: TensorRules;
    readonly loraPlusRatio?: number;
  },
): AdapterLayout {
  const modules = adaptedModules(config, model);
  const useDora = config.use_dora;
  const adapters = modules.flatMap(({ path, numInputs, numOutputs }) => {
    const rank = rankOf(config, path);
    const shapes = { A: [rank, numInputs], B: [numOutputs, rank], magnitude: [numOutputs] };
    return partsOf({ useDora }).map((part) => ({
      ...{ name: loraTensorName(path, part), shape: shapes[part] },
      ...(part === "magnitude" ? { decays: true } : {}),
    }));
  });
  const isSaved = (name: string): boolean => isSavedWhole(config.modules_to_save, name);
  const whole = model.weights.filter(({ name }) => isSaved(name));
  const trained = [...adapters, ...whole].sort((a, b) => (a.name < b.name ? -1 : 1));
  const isFast = (name: string, { length: rank }: readonly number[]): boolean =>
    rank === 1 || loraPartOf(name)?.part === "B";
  return {
    trained: buildParameterLayout(trained, wireDtype, {
      firstUpdatesOf,
      rateOf: ({ name, shape }) =>
        rateOf({ name, shape }) * (isFast(name, shape) ? loraPlusRatio : 1),
    }),
    frozen: frozenLayout(
      model.weights.filter(({ name }) => !isSaved(name)),
      frozenDtype,
      model.facts,
    ),
    job: {
      kind: "lora",
      scales: Object.fromEntries(modules.map(({ path }) => [path, scaleOf(config, path)])),
      useDora,
    },
    matrices: trained.filter(({ shape }) => shape.length >= 2).map(({ name }) => name),
  };
}
