import { type ModelDropoutKind, modelDropoutKinds } from "#lib/core/dropout";
import { LockstepError } from "#lib/core/errors/index";
import { factsOf } from "./facts.js";

type Json = Readonly<Record<string, unknown>>;

/** Probabilities from 0 to below 1, of each kind that a model has. */
export type ModelDropoutRates = Readonly<Partial<Record<ModelDropoutKind, number>>>;

/**
 * Which values a model drops in training, as its config.json says or as transformers has it where that says
 * nothing. A kind that is absent is one that the model does not have, whatever its config.json says: Phi-3's
 * `embd_pdrop` is used by no code of transformers either.
 *
 * @param isClassifier whether it has a head for sequence classification
 * @returns no kinds for a type that is not here
 * @throws E_MODEL_CONFIG
 */
export function modelDropoutRates(modelConfig: Json, isClassifier: boolean): ModelDropoutRates {
  const facts = factsOf(modelConfig);
  const rates: Partial<Record<ModelDropoutKind, number>> = {};
  for (const kind of modelDropoutKinds) {
    const declared = facts?.dropouts[kind];
    if (facts === undefined || declared === undefined) continue;
    if (kind === "classifier" && !isClassifier) continue;
    const isSet = (key: string): boolean => (modelConfig[key] ?? null) !== null;
    const key = declared.keys.find(isSet) ?? declared.keys[0] ?? kind;
    const value = isSet(key) ? modelConfig[key] : declared.rate;
    if (typeof value !== "number" || !(value >= 0 && value < 1)) {
      throw new LockstepError("E_MODEL_CONFIG", {
        ...{ model: facts.modelType, key, got: JSON.stringify(value) },
        expected: "a rate of at least 0 and less than 1",
      });
    }
    rates[kind] = value;
  }
  return rates;
}
