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
 * of the adapters. A run that learns from pairs has those of the key alone, as in TRL and LLaMA-Factory, unless
 * `disable_dropout: false` asks for all: log-likelihoods of different masks are hard to compare.
 *
 * @param given.adapterRate from 0 to below 1
 * @param given.comparesPairs whether any of what the run learns is of pairs
 * @throws E_CONFIG_UNSUPPORTED for a kind that the model does not have, E_MODEL_CONFIG
 */
export function runDropout(
  config: Pick<ResolvedConfig, "dropout" | "disable_dropout" | "neftune_noise_alpha">,
  modelConfig: Readonly<Record<string, unknown>>,
  {
    isClassifier,
    adapterRate,
    comparesPairs,
  }: {
    readonly isClassifier: boolean;
    readonly adapterRate: number;
    readonly comparesPairs: boolean;
  },
): RunDropout {
  const own = modelDropoutRates(modelConfig, isClassifier);
  const asked = askedRates(config, own);
  const isOff = config.disable_dropout ?? comparesPairs;
  const rates: Partial<Record<DropoutKind, number>> = {};
  const [used, unused] = [new Map<string, string[]>(), new Map<string, string[]>()];
  const add = (kind: DropoutKind, rate: number, source: string, isUsed = !isOff): void => {
    if (rate === 0) return;
    if (isUsed) rates[kind] = rate;
    const sources = isUsed ? used : unused;
    sources.set(source, [...(sources.get(source) ?? []), `${kind} ${rate}`]);
  };
  for (const [kind, rate] of Object.entries(own) as [ModelDropoutKind, number][]) {
    const given = asked[kind];
    if (given === undefined) add(kind, rate, "the model's config.json");
    else add(kind, given, "the key dropout", true);
  }
  add("adapters", adapterRate, "lora_dropout");
  const inWords = (sources: ReadonlyMap<string, readonly string[]>): string =>
    [...sources].map(([source, kinds]) => `${kinds.join(", ")} (${source})`).join("; ");
  const isTurnedOff = used.size === 0 && Object.values(own).some((rate) => rate > 0);
  const reason =
    config.disable_dropout === true
      ? "disable_dropout: true"
      : "the run learns from pairs, and disable_dropout: false is not set";
  const words =
    unused.size > 0
      ? [`${inWords(used) || "none"}; not ${inWords(unused)}: ${reason}`]
      : used.size > 0
        ? [inWords(used)]
        : isTurnedOff
          ? ["none (the key dropout)"]
          : [];
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
