import type { CoordinatorOptions } from "./options.js";

/** Whether something that happens every so many steps happens after this one; 0 is never. */
export const isDue = (everySteps: number | undefined, step: number): boolean =>
  everySteps !== undefined && everySteps > 0 && step % everySteps === 0;

export function isEvaluationDue(
  evaluation: CoordinatorOptions["evaluation"],
  step: number,
): boolean {
  const { everySteps, delaySteps = 0 } = evaluation ?? {};
  return step > 0 && step >= delaySteps && isDue(everySteps, step);
}
