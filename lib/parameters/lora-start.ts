import {
  type AdapterFacts,
  isInputMajor,
  type LoraConfig,
  loraPartOf,
  type LoraPart,
  rowNorms,
} from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorSlot } from "#lib/core/parameter-layout";
import { fillNormal, RandomStream } from "#lib/core/random";
import type { StartingModel } from "./model.js";

interface AdapterStart {
  readonly config: Pick<LoraConfig, "init_lora_weights">;
  readonly facts: AdapterFacts;
  /** Weights of the base model. */
  readonly read: (name: string) => ReturnType<StartingModel["read"]>;
  /** Names of the trained matrices, which number their random numbers. */
  readonly matrices: readonly string[];
  readonly seed: number;
}

/**
 * The first values of what an adapter trains, as peft makes them, so that the first step starts from the base
 * model: B is zeros, magnitudes are the norms of the base's rows, and what is saved whole is the base's.
 *
 * @throws E_CONFIG_UNSUPPORTED for magnitudes of a row of zeros, which has no direction
 */
export async function firstValues(
  { name, shape }: TensorSlot,
  { config, facts, read, matrices, seed }: AdapterStart,
): Promise<Float32Array> {
  const found = loraPartOf(name);
  if (found === undefined) return read(name);
  const { path, part } = found;
  if (part !== "magnitude") {
    const random = new RandomStream(seed, "initialization", 1000 + matrices.indexOf(name));
    return initialMatrix(part, shape, config, random);
  }
  const isTransposed = isInputMajor(facts, path);
  const norms = rowNorms(await read(`${path}.weight`), {
    ...{ numOutputs: shape[0] as number, isTransposed },
  });
  const empty = norms.indexOf(0);
  if (empty < 0) return norms;
  throw new LockstepError("E_CONFIG_UNSUPPORTED", {
    ...{ key: "use_dora", value: "true", where: "" },
    reason: `output ${empty} of ${path} is a row of zeros in the base model, which has no direction; lora_exclude_modules leaves the module out`,
  });
}

/**
 * A matrix as peft draws it: A uniform within 1 / sqrt(inputs) (kaiming_uniform with a = sqrt(5)) or, gaussian,
 * normal with a deviation of 1 / r; B zeros.
 */
function initialMatrix(
  matrix: Exclude<LoraPart, "magnitude">,
  shape: readonly number[],
  { init_lora_weights: form }: AdapterStart["config"],
  random: RandomStream,
): Float32Array {
  const [rows, columns] = shape as [number, number];
  const values = new Float32Array(rows * columns);
  if (matrix === "B") return values;
  if (form === "gaussian") {
    fillNormal(values, 1 / rows, random);
    return values;
  }
  const bound = 1 / Math.sqrt(columns);
  for (let i = 0; i < values.length; i++) values[i] = (2 * random.nextFloat64() - 1) * bound;
  return values;
}
