import { LockstepError } from "#lib/core/errors/index";
import { causalLm } from "./causal-lm.js";
import { multiLabelClassification } from "./multi-label-classification.js";
import type { Objective } from "./objective.js";
import { dpo } from "./dpo.js";
import { orpo } from "./orpo.js";
import { regression } from "./regression.js";
import { reward } from "./reward.js";
import { singleLabelClassification } from "./single-label-classification.js";

export { batchTargets, type Metric, type Objective } from "./objective.js";

/** A line a kind; lib/tuning/objectives has the same kinds. */
export const objectives = [
  // Of those that read labels, auto chooses the first that suits a data set.
  causalLm,
  singleLabelClassification,
  multiLabelClassification,
  regression,
  // Of those that compare pairs, auto chooses the first.
  dpo,
  orpo,
  reward,
] as const satisfies readonly Objective[];

/** @throws E_MODEL_UNSUPPORTED for a name that is none */
export function objectiveOf(kind: string): Objective {
  const found = objectives.find((objective) => objective.kind === kind);
  if (found !== undefined) return found;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `problem_type ${kind}` });
}
