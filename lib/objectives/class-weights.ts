import { z } from "zod";
import type { Batch } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { rowWeightsField } from "#lib/core/loss-weights";
import type { ObjectiveJob, ObjectiveSettings } from "#lib/core/job";
import type { LearntLabels } from "./objective.js";

/** Weights that a person may give: between them float32 keeps what sets one class off from another. */
const [minWeight, maxWeight] = [1e-4, 1e4];

export const classWeightFields = {
  class_weights: z
    .union([z.literal("balanced"), z.record(z.string(), z.number().min(minWeight).max(maxWeight))])
    .transform((value) => Object.freeze(value))
    .nullable()
    .default(null)
    .describe(
      "how much the loss of each class counts: {NAME: weight} with every class, or balanced, by how rare they are",
    ),
};

type AskedWeights = z.output<(typeof classWeightFields)["class_weights"]>;

/** Rows to train on, by class. */
interface ClassCounts {
  /** Of each class, the rows that have it. */
  readonly rows: readonly number[];
  /** All rows. */
  readonly numRows: number;
}

interface WeightRule {
  /** The classes that a row has, by number. */
  classesOf(targets: Batch["fields"]): readonly number[];
  /** What `balanced` comes to. */
  balanced(counts: ClassCounts): readonly number[];
}

const setting = "classWeights";

/** The weights of a job's classes, by number; undefined: all count alike. */
export const classWeightsOf = ({ settings }: ObjectiveJob): readonly number[] | undefined =>
  weightsIn(settings);

function weightsIn(settings: ObjectiveSettings | undefined): readonly number[] | undefined {
  const value = settings?.[setting];
  return typeof value === "number" || typeof value === "string" ? undefined : value;
}

/** @throws E_CONFIG_INVALID for names that are not those of the classes */
export function classWeightSettings(
  config: { readonly class_weights: AskedWeights },
  { names, numRows, targetsOf, placeOf }: LearntLabels,
  { classesOf, balanced }: WeightRule,
): ObjectiveSettings {
  const asked = config.class_weights;
  if (asked === null) return {};
  if (asked !== "balanced") {
    return { [setting]: exactlySummed(namedWeights(asked, names, placeOf("class_weights"))) };
  }
  const rows = names.map(() => 0);
  for (let row = 0; row < numRows; row++) {
    for (const label of classesOf(targetsOf(row))) rows[label] = (rows[label] ?? 0) + 1;
  }
  return { [setting]: exactlySummed(balanced({ rows, numRows })) };
}

/**
 * Of each class n / (K * count), as scikit-learn's `compute_class_weight("balanced")` has it over the K classes
 * that rows have; 1 for a class that no row has.
 */
export function balancedWeights({ rows, numRows }: ClassCounts): readonly number[] {
  const numPresent = rows.filter((count) => count > 0).length;
  return rows.map((count) => (count === 0 ? 1 : numRows / (numPresent * count)));
}

/** Of each class its rows without it over those with it; 1 where there are none of either. */
export const balancedPositiveWeights = ({ rows, numRows }: ClassCounts): readonly number[] =>
  rows.map((count) => (count === 0 || count === numRows ? 1 : (numRows - count) / count));

/**
 * The nearest weights that are whole multiples of 2^-32 of the power of two above the largest. Sums of the
 * weights of up to 2^21 rows are exact then, in whatever order they are made.
 */
function exactlySummed(weights: readonly number[]): readonly number[] {
  const unit = 2 ** (Math.ceil(Math.log2(Math.max(...weights))) - 32);
  return weights.map((weight) => Math.max(1, Math.round(weight / unit)) * unit);
}

const unitSetting = "weightUnit";
/** What a product of weights may be off by, as a share of it. */
const maxProductError = 1e-5;

/**
 * Of what the products of the weights of classes and of rows are whole multiples: 2^-36 of the power of two above the
 * largest that a row to train on has, so that those of 2^17 rows are summed exactly in any order.
 *
 * @throws E_CONFIG_CONFLICT where a row's product would be off by more than 1e-5 of it
 */
export function productSettings(
  settings: ObjectiveSettings,
  { numRows, targetsOf }: LearntLabels,
  classesOf: WeightRule["classesOf"],
): ObjectiveSettings {
  const classWeights = weightsIn(settings);
  if (classWeights === undefined || numRows === 0) return {};
  const products: number[] = [];
  for (let row = 0; row < numRows; row++) {
    const targets = targetsOf(row);
    const ofRow = targets[rowWeightsField.name]?.[0];
    if (ofRow === undefined) return {};
    for (const label of classesOf(targets)) products.push((classWeights[label] ?? 0) * ofRow);
  }
  const largest = products.reduce((top, product) => Math.max(top, product), 0);
  const unit = 2 ** (Math.ceil(Math.log2(largest)) - 36);
  for (const product of products) {
    if (Math.abs(multipleOf(unit, product) - product) <= maxProductError * product) continue;
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "class_weights and weights of rows",
      reason: `a row counts ${Number(product.toPrecision(4))} and another ${Number(largest.toPrecision(4))}, too far apart to be summed exactly: a million times at most`,
    });
  }
  return { [unitSetting]: unit };
}

const multipleOf = (unit: number, value: number): number => Math.round(value / unit) * unit;

/** The product of a class's weight and a row's, as it is counted. */
export function exactProduct({ settings }: ObjectiveJob, ofClass: number, ofRow: number): number {
  const unit = settings?.[unitSetting];
  // Without a unit no row to train on has a weight of its own.
  return typeof unit === "number" ? multipleOf(unit, ofClass * ofRow) : ofClass * ofRow;
}

function namedWeights(
  asked: Readonly<Record<string, number>>,
  names: readonly string[],
  where: string,
): readonly number[] {
  const given = new Map(Object.entries(asked));
  const invalid = (got: string): LockstepError =>
    new LockstepError("E_CONFIG_INVALID", {
      key: "class_weights",
      expected: `balanced, or a weight for each of the classes ${names.slice(0, 20).join(", ")}`,
      got,
      where,
    });
  const weights = names.map((name, number) => {
    // Classes without names of their own are called by their numbers.
    const key = !given.has(name) && name === `LABEL_${number}` ? String(number) : name;
    const weight = given.get(key);
    if (weight === undefined) throw invalid(`none for ${JSON.stringify(name)}`);
    given.delete(key);
    return weight;
  });
  const [unknown] = given.keys();
  if (unknown === undefined) return weights;
  throw invalid(`one for ${JSON.stringify(unknown)}`);
}

/** The weights for a person, of some classes at most. */
export function describedWeights(names: readonly string[], weights: readonly number[]): string {
  const listed = weights
    .slice(0, 10)
    .map((weight, number) => `${names[number]} ${Number(weight.toPrecision(4))}`);
  return `${listed.join(", ")}${weights.length > 10 ? ", ..." : ""}`;
}
