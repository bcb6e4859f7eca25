import { placeOf, type ResolvedConfig } from "#lib/config/index";
import {
  type DropoutKind,
  type DropoutRates,
  type ModelDropoutKind,
  modelDropoutKinds,
} from "#lib/core/dropout";
import { LockstepError } from "#lib/core/errors/index";
import { type ModelDropoutRates, modelDropoutRates } from "#lib/models/dropout-rates";

/** What a run drops while it trains, and the noise that it adds. */
export interface RunDropout {
  /** Above 0. */
  readonly rates: DropoutRates;
  /** Of the noise on embeddings; undefined: none. */
  readonly noiseAlpha: number | undefined;
  /** About it, for a person. */
  readonly lines: readonly string[];
}

/**
 * The rates of the model's config.json, those of the key `dropout` in their place where it has some, and that
 * of the adapters.
 *
 * @param adapterRate from 0 to below 1
 * @throws E_CONFIG_UNSUPPORTED for a kind that the model does not have, E_MODEL_CONFIG
 */
export function runDropout(
  config: Pick<ResolvedConfig, "dropout" | "neftune_noise_alpha">,
  modelConfig: Readonly<Record<string, unknown>>,
  { isClassifier, adapterRate }: { readonly isClassifier: boolean; readonly adapterRate: number },
): RunDropout {
  const own = modelDropoutRates(modelConfig, isClassifier);
  const asked = askedRates(config, own);
  const rates: Partial<Record<DropoutKind, number>> = {};
  const sources = new Map<string, string[]>();
  const add = (kind: DropoutKind, rate: number, source: string): void => {
    if (rate === 0) return;
    rates[kind] = rate;
    sources.set(source, [...(sources.get(source) ?? []), `${kind} ${rate}`]);
  };
  for (const [kind, rate] of Object.entries(own) as [ModelDropoutKind, number][]) {
    const given = asked[kind];
    if (given === undefined) add(kind, rate, "the model's config.json");
    else add(kind, given, "the key dropout");
  }
  add("adapters", adapterRate, "lora_dropout");
  const told = [...sources].map(([source, kinds]) => `${kinds.join(", ")} (${source})`);
  const isTurnedOff = told.length === 0 && Object.values(own).some((rate) => rate > 0);
  const words = isTurnedOff ? ["none (the key dropout)"] : told;
  const noiseAlpha = hasNoise(config) ? (config.neftune_noise_alpha ?? 0) : undefined;
  return {
    ...{ rates, noiseAlpha },
    lines: [
      ...(words.length === 0 ? [] : [`dropout: ${words.join("; ")}`]),
      ...(noiseAlpha === undefined
        ? []
        : [
            `noise: vectors of tokens get up to ${noiseAlpha} / sqrt(L D) in training, L the tokens of the longest row of a micro-batch (neftune_noise_alpha)`,
          ]),
    ],
  };
}

/** Whether training adds NEFTune's noise. */
export const hasNoise = (config: Pick<ResolvedConfig, "neftune_noise_alpha">): boolean =>
  (config.neftune_noise_alpha ?? 0) > 0;

/** What the key says of each kind that the model has. */
function askedRates(
  config: Pick<ResolvedConfig, "dropout">,
  own: ModelDropoutRates,
): ModelDropoutRates {
  const { dropout } = config;
  if (dropout === null) return {};
  if (typeof dropout === "number") {
    return Object.fromEntries(Object.keys(own).map((kind) => [kind, dropout]));
  }
  const asked: Partial<Record<ModelDropoutKind, number>> = {};
  for (const kind of modelDropoutKinds) {
    const rate = dropout[kind];
    if (rate === undefined) continue;
    if (own[kind] === undefined && rate !== 0) {
      throw new LockstepError("E_CONFIG_UNSUPPORTED", {
        ...{ key: "dropout", value: `${kind} ${rate}`, where: placeOf(config, "dropout") },
        reason: `the model drops values of ${Object.keys(own).join(", ") || "no kind"} alone`,
      });
    }
    asked[kind] = rate;
  }
  return asked;
}
