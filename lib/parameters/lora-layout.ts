import {
  adaptedModules,
  type BaseModel,
  isSavedWhole,
  type LoraConfig,
  rankOf,
  scaleOf,
} from "#lib/checkpoint/peft/index";
import type { WireDtype, WireForm } from "#lib/core/dtype";
import {
  buildParameterLayout,
  type FormOf,
  type ParameterLayout,
  type RateOf,
} from "#lib/core/parameter-layout";
import { RandomStream } from "#lib/core/random";
import { frozenLayout } from "./quantization.js";

/** What an engine has to know of a job of adapters, beside its two spaces. */
export interface LoraJob {
  readonly kind: "lora";
  /** By path of the adapted module: the factor of B A x. */
  readonly scales: Readonly<Record<string, number>>;
}

/** The name in the trained space of one of an adapted module's matrices. */
export const loraWeightName = (path: string, matrix: "A" | "B"): string =>
  `${path}.lora_${matrix}.weight`;

/** What a job of adapters trains, and what stays. */
interface AdapterLayout {
  readonly trained: ParameterLayout;
  readonly frozen: ParameterLayout;
  readonly job: LoraJob;
  /** Names of trained matrices in an order that their rates do not change. */
  readonly matrices: readonly string[];
}

/**
 * Divides a model's weights into trained and frozen ones. The trained space holds A and B of every
 * adapted module and the weights of `modules_to_save`, by sorted name.
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
    rateOf = () => 1,
    loraPlusRatio = 1,
  }: {
    readonly wireDtype: WireDtype;
    readonly frozenDtype: WireForm | FormOf;
    readonly rateOf?: RateOf;
    readonly loraPlusRatio?: number;
  },
): AdapterLayout {
  const modules = adaptedModules(config, model);
  const adapters = modules.flatMap(({ path, numInputs, numOutputs }) => [
    { name: loraWeightName(path, "A"), shape: [rankOf(config, path), numInputs] },
    { name: loraWeightName(path, "B"), shape: [numOutputs, rankOf(config, path)] },
  ]);
  const isSaved = (name: string): boolean => isSavedWhole(config.modules_to_save, name);
  const whole = model.weights.filter(({ name }) => isSaved(name));
  const trained = [...adapters, ...whole].sort((a, b) => (a.name < b.name ? -1 : 1));
  const isFast = (name: string, { length: rank }: readonly number[]): boolean =>
    rank === 1 || loraMatrixOf(name)?.matrix === "B";
  return {
    trained: buildParameterLayout(
      trained,
      wireDtype,
      ({ name, shape }) => rateOf({ name, shape }) * (isFast(name, shape) ? loraPlusRatio : 1),
    ),
    frozen: frozenLayout(
      model.weights.filter(({ name }) => !isSaved(name)),
      frozenDtype,
      model.facts,
    ),
    job: {
      kind: "lora",
      scales: Object.fromEntries(modules.map(({ path }) => [path, scaleOf(config, path)])),
    },
    matrices: trained.filter(({ shape }) => shape.length >= 2).map(({ name }) => name),
  };
}

/** The module and the matrix that a name of the trained space is of; undefined for a whole weight. */
export function loraMatrixOf(
  name: string,
): { readonly path: string; readonly matrix: "A" | "B" } | undefined {
  const [, path, matrix] = /^(.+)\.lora_([AB])\.weight$/.exec(name) ?? [];
  return path === undefined ? undefined : { path, matrix: matrix as "A" | "B" };
}

/**
 * The first values of an adapter's matrix, as peft draws them (kaiming_uniform with a = sqrt(5)): A
 * uniform within 1 / sqrt(inputs), B zeros, so that the first step starts from the base model.
 *
 * @param stream a number of the matrix's own
 */
export function initialMatrix(
  matrix: "A" | "B",
  shape: readonly number[],
  seed: number,
  stream: number,
): Float32Array {
  const [rows, columns] = shape as [number, number];
  const values = new Float32Array(rows * columns);
  if (matrix === "B") return values;
  const random = new RandomStream(seed, "initialization", stream);
  const bound = 1 / Math.sqrt(columns);
  for (let i = 0; i < values.length; i++) values[i] = (2 * random.nextFloat64() - 1) * bound;
  return values;
}
