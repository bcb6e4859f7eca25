import type { ObjectiveJob } from "#lib/core/job";
import type { PreparedDataset } from "#lib/data/index";
import type { Objective } from "#lib/objectives/index";

type Rows = PreparedDataset["train"]["rows"];

/** The rows with what each counts in the loss of their objective. */
export function weighedRows(rows: Rows, learnt: Objective, job: ObjectiveJob): Rows {
  const { targetsOf } = rows;
  if (targetsOf === undefined) return rows;
  return { ...rows, lossWeight: (row) => learnt.weightOf(targetsOf(row), job) };
}
