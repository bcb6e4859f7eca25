import { type ResolvedConfig, withChanges } from "#lib/config/index";
import type { RunIdentity } from "#lib/checkpoint/run-identity";
import { type Batch, hasField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";
import { evaluationBatches, type PreparedDataset, rowsSha256 } from "#lib/data/index";
import { segmentedRows } from "#lib/data/segmented-rows";
import { evenTokenRows } from "#lib/data/weighted-rows";
import type { Objective } from "#lib/objectives/index";
import { describeData, describeSides } from "./describe-data.js";
import { type DataContext, type LearntRows, prepareRows } from "./prepare-rows.js";

/** The rows of `general_dataset`, which batches hold as they hold the run's own. */
export interface GeneralData {
  readonly dataset: PreparedDataset;
  readonly learnt: Objective;
  readonly objective: ObjectiveJob;
  /** Whose form its batches have. */
  readonly task: number;
  /** Empty where nothing is kept for validation. */
  readonly validation: readonly Batch[];
  /** Lines for a person: what there is on both sides. */
  readonly layoutLines: readonly string[];
  /** The same, and the rows that were left out. */
  readonly dataLines: readonly string[];
  readonly digests: () => Promise<
    Required<Pick<RunIdentity["data"], "generalTraining" | "generalValidation">>
  >;
  readonly close: () => void;
}

/**
 * Prepares `general_dataset` with the tokenizer, the length and the template of the run's own rows.
 *
 * @param own the run's rows
 * @returns undefined where the configuration has none
 * @throws E_CONFIG_CONFLICT where the run or the rows learn something else than the next token
 */
export async function prepareGeneral(
  config: ResolvedConfig,
  own: Pick<LearntRows, "objective" | "dataset">,
  { observer: _ofOwnRows, ...context }: DataContext,
): Promise<GeneralData | undefined> {
  const { general_dataset: names, general_eval_dataset: evalNames } = config;
  if (names === null) return undefined;
  if (own.objective.kind !== "causal_lm") {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "general_dataset and objective",
      reason: `general rows are learnt of as the next token, and this run learns ${own.objective.kind}`,
    });
  }
  const { onDetail } = context;
  const hasSegments = hasField(own.dataset.train.rows.inputs, "segments");
  const rows = await prepareRows(
    withChanges(config, {
      // The length of the rows beside which batches hold them: a task may have its own.
      max_length: own.dataset.train.rows.sequenceLength,
      // Rows that share one need segments, which batches have throughout or not at all.
      ...(hasSegments || config.packing === false ? {} : { packing: null }),
    }),
    {
      dataset: names,
      evalDataset: evalNames,
      // The run's own rows decide which keys of objectives have a meaning.
      isOneOfSeveral: true,
      refuseLabels: () =>
        new LockstepError("E_CONFIG_CONFLICT", {
          keys: "general_dataset and objective",
          reason:
            "general rows are learnt of as the next token, and these have a label; an entry {path: FILE, type: completion} takes their texts",
        }),
    },
    { ...context, onDetail: (detail) => onDetail(`general data: ${detail}`) },
  );
  try {
    const { isWeighted } = own.dataset;
    if (rows.dataset.isWeighted && !isWeighted) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "general_dataset and dataset",
        reason:
          "general rows have weights and the run's own have none: give these a column of weights too (columns.weight)",
      });
    }
    const segmented = hasSegments ? withRows(rows.dataset, segmentedRows) : rows.dataset;
    const dataset = isWeighted ? withRows(segmented, evenTokenRows) : segmented;
    const { train, validation } = dataset;
    const unkept =
      validation === undefined
        ? ["no general row is kept for validation, so nothing tells what is forgotten"]
        : [];
    return {
      dataset,
      task: 0,
      learnt: rows.learnt,
      objective: isWeighted ? { ...rows.objective, isWeighted } : rows.objective,
      validation:
        validation === undefined
          ? []
          : evaluationBatches(validation.rows, config.per_device_eval_batch_size),
      layoutLines: [...describeSides(dataset, "general "), ...unkept],
      dataLines: [...describeData(dataset, "general "), ...unkept],
      digests: async () => ({
        generalTraining: await rowsSha256(train.rows),
        generalValidation: validation === undefined ? null : await rowsSha256(validation.rows),
      }),
      close: dataset.close,
    };
  } catch (error) {
    rows.dataset.close();
    throw error;
  }
}

function withRows(
  { train, validation, ...dataset }: PreparedDataset,
  changed: (rows: typeof train.rows) => typeof train.rows,
): PreparedDataset {
  const side = (of: typeof train): typeof train => ({ ...of, rows: changed(of.rows) });
  return {
    ...dataset,
    train: side(train),
    validation: validation === undefined ? undefined : side(validation),
  };
}
