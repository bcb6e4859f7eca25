import type { Experiment } from "#bench/frame/experiment";
import type { RowPrecision } from "#bench/frame/precision";
import { classifier, classify } from "./classifier.js";
import { generate } from "./generate.js";
import { load } from "./load.js";
import { lora } from "./lora.js";
import { compiledStep, floor, fp32Step, step } from "./step.js";
import { reduction, synchronisation } from "./synchronisation.js";
import { tokenise } from "./tokenise.js";
import { shardProcesses, twoWorkers } from "./two-workers.js";

/** In the order of the table, in the precision that both sides of its rows compute in. */
export const experimentsIn = (precision: RowPrecision): readonly Experiment[] => [
  step(precision),
  compiledStep(precision),
  floor(precision),
  ...(precision === "bf16" ? [fp32Step] : []),
  lora(precision),
  twoWorkers(precision),
  shardProcesses(precision),
  synchronisation,
  reduction,
  classifier(precision),
  generate(precision),
  classify(precision),
  tokenise,
  load(precision),
];

/** Experiments by their names or their rows'; a row's name keeps only that row. */
export function select(
  all: readonly Experiment[],
  names: readonly string[],
): { readonly chosen: readonly Experiment[]; readonly unknown: readonly string[] } {
  if (names.length === 0) return { chosen: all, unknown: [] };
  const isKnown = (name: string): boolean =>
    all.some((experiment) => experiment.name === name || hasRow(experiment, name));
  const chosen = all.flatMap((experiment) => {
    if (names.includes(experiment.name)) return [experiment];
    const rows = experiment.rows.filter((row) => names.includes(row.name));
    return rows.length === 0 ? [] : [{ ...experiment, rows }];
  });
  return { chosen, unknown: names.filter((name) => !isKnown(name)) };
}

const hasRow = ({ rows }: Experiment, name: string): boolean =>
  rows.some((row) => row.name === name);
