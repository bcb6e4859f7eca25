/** Whether something that happens every so many steps happens after this one; 0 is never. */
export const isDue = (everySteps: number | undefined, step: number): boolean =>
  everySteps !== undefined && everySteps > 0 && step % everySteps === 0;
