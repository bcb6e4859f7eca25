import { LockstepError } from "#lib/core/errors/index";
import { causalLm } from "./causal-lm.js";
import { multiLabelClassification } from "./multi-label-classification.js";
import type { TracedObjective } from "./objective.js";
import { dpo } from "./dpo.js";
import { orpo } from "./orpo.js";
import { regression } from "./regression.js";
import { reward } from "./reward.js";
import { singleLabelClassification } from "./single-label-classification.js";

export type { HeadedModel, ReferenceModel, TracedLoss } from "./objective.js";

/** A line a kind; lib/objectives has the same kinds. */
export const tracedObjectives: readonly TracedObjective[] = [
  causalLm,
  singleLabelClassification,
  multiLabelClassification,
  regression,
  dpo,
  orpo,
  reward,
];

/** @throws E_MODEL_UNSUPPORTED for a name that is none */
export function tracedObjective(kind: string): TracedObjective {
  const found = tracedObjectives.find((objective) => objective.kind === kind);
  if (found !== undefined) return found;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `problem_type ${kind}` });
}
