/** Pairs of answers as TRL's trainers computed them: tests/fixtures/preferences. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type Batch,
  type BatchField,
  fieldArray,
  ignoredTarget,
  inputFields,
  marginField,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
  valuesPerRow,
} from "#lib/core/batch";
import type { ObjectiveJob } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import { objectiveOf } from "#lib/objectives/index";

const directory = join(packageRoot, "tests/fixtures/preferences");

interface PairCase {
  readonly model: string;
  readonly objective: string;
  readonly settings: Readonly<Record<string, unknown>>;
  /** The chosen sequences, then the rejected ones. */
  readonly tokens: readonly (readonly number[])[];
  /** 1 where a token is of an answer. */
  readonly learnt: readonly (readonly number[])[];
  readonly margins?: readonly number[];
  readonly loss: number;
  /** What TRL logs. */
  readonly figures: Readonly<Record<string, number>>;
}

export const pairCases = JSON.parse(
  readFileSync(join(directory, "cases.json"), "utf8"),
) as Readonly<Record<string, PairCase>>;

export const pairGradients = (name: string): string => join(directory, `${name}.safetensors`);

/** As the fixture's script changes the policy's weights. */
export const perturbed = (values: Float32Array): Float32Array =>
  values.map((value, i) => value * (1 + 0.1 * Math.sin(i)));

/** Tokens in a row: more than any sequence has. */
const rowLength = 10;

/** A case's objective as a job has it. */
export function pairObjectiveJob({ objective: kind, settings }: PairCase): ObjectiveJob {
  const { settings: settingsOf } = objectiveOf(kind);
  const config = {
    loss_type: null,
    label_smoothing: 0,
    center_rewards_coefficient: null,
    orpo_nll_tokens: "sequence",
  };
  const read = settingsOf?.(
    { ...config, ...settings },
    {
      names: [],
      numRows: 0,
      targetsOf: () => ({}),
      placeOf: () => "",
    },
  );
  return { kind, ...(read === undefined ? {} : { settings: read }) };
}

/** A case's pairs with a row of padding behind them. */
export function pairBatch(
  { tokens, learnt, margins = [] }: PairCase,
  targets: readonly BatchField[],
): Batch & { readonly rowLength: number } {
  const numPairs = tokens.length / 2;
  const numRows = numPairs + 1;
  const fields = Object.fromEntries(
    [...inputFields(), ...targets].map((field) => {
      const values = fieldArray(field, numRows * valuesPerRow(field, rowLength));
      return [field.name, field.name === "tokens" ? values : values.fill(ignoredTarget)];
    }),
  );
  for (let row = 0; row < numPairs; row++) {
    const [chosen, rejected] = [row, numPairs + row].map((sequence) => ({
      ids: tokens[sequence] ?? [],
      isLearnt: learnt[sequence] ?? [],
    }));
    if (chosen === undefined || rejected === undefined) continue;
    for (const [side, names] of [
      [chosen, ["tokens", nextTokenField.name]],
      [rejected, [rejectedTokensField.name, rejectedTargetsField.name]],
    ] as const) {
      const start = row * rowLength;
      fields[names[0]]?.fill(0, start, start + rowLength);
      fields[names[0]]?.set(side.ids, start);
      const next = side.ids.map((id, i) => (side.isLearnt[i] === 1 ? id : ignoredTarget));
      fields[names[1]]?.set(next.slice(1), start);
    }
    fields[pairLengthsField.name]?.set([chosen.ids.length, rejected.ids.length], 2 * row);
    fields[marginField.name]?.set([margins[row] ?? 0], row);
  }
  return { numRows, fields, rowLength };
}
