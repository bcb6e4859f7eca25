import type { FisherSource } from "#coordinator/options";
import type { SettledConfig } from "#lib/config/index";
import { squaresInFp16 } from "#lib/config/general-fields";
import type { Batch } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import { gatherBatch, spreadEvenly } from "#lib/data/rows";
import { evenBatch } from "#lib/data/weighted-rows";
import { parametersKindOf } from "#lib/parameters/index";
import type { GeneralData } from "./general-data.js";

/** Rows of a lease: some seconds of a worker's time, which is what a death costs. */
const rowsPerGroup = 16;

/**
 * Which general rows the Fisher information of a run with EWC is measured on, in which rounds and groups; undefined
 * without a penalty. Rows are spread evenly over the training side, and belong to groups by the configuration alone.
 *
 * @throws E_CONFIG_CONFLICT
 */
export function fisherSource(
  config: SettledConfig,
  general: GeneralData | undefined,
): FisherSource | undefined {
  const { ewc_lambda, ewc_samples, ewc_normalize, gradient_groups: numGroups, fp16 } = config;
  if (ewc_lambda === 0 || general === undefined) return undefined;
  if (fp16) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "ewc_lambda and fp16",
      reason: squaresInFp16,
    });
  }
  const { task } = general;
  const { rows } = general.dataset.train;
  const batchOf = (indices: readonly number[]): Batch => ({
    // Of the log-likelihood itself: weights of rows are the loss's, and a square would have them twice.
    ...evenBatch(gatherBatch(rows, indices, 1)),
    ...(task === 0 ? {} : { task }),
  });
  const chosen = spreadEvenly(rows.numRows, ewc_samples);
  const numRows = chosen.length;
  const perRound = rowsPerGroup * numGroups;
  return {
    numRows,
    numRounds: Math.ceil(numRows / perRound),
    maxRowsPerGroup: Math.min(rowsPerGroup, numRows),
    normalises: ewc_normalize,
    microBatches: (round, group) => {
      const start = round * perRound;
      const inRound = Math.min(perRound, numRows - start);
      const from = start + Math.floor((inRound * group) / numGroups);
      const to = start + Math.floor((inRound * (group + 1)) / numGroups);
      // A group without a row has one of padding, whose gradient is 0.
      if (from === to) return [batchOf([])];
      return [...chosen.subarray(from, to)].map((row) => batchOf([row]));
    },
  };
}

/** What a person is told of it before it is measured. */
export function describeFisher(
  config: SettledConfig,
  source: FisherSource | undefined,
): readonly string[] {
  const { ewc_lambda, ewc_samples, ewc_normalize } = config;
  if (source === undefined) return [];
  const { numRows } = source;
  const startsAtZero =
    ["lora", "qlora"].includes(parametersKindOf(config).name) &&
    config.adapter_name_or_path === null;
  const all =
    numRows < ewc_samples ? ` (all there are, of ewc_samples ${withCommas(ewc_samples)})` : "";
  return [
    `EWC with ewc_lambda ${ewc_lambda}: the empirical Fisher information of ${counted(numRows, "general row")}${all} is measured before step 1${ewc_normalize ? ", and scaled to a mean of 1" : ""}`,
    ...(startsAtZero
      ? [
          "EWC does not pull A of the adapters: B of a new one is 0, and with it the Fisher information of A",
        ]
      : []),
  ];
}
