import type { Jury } from "#coordinator/compared-work";

/** Nothing is verified, and nobody is expected to disagree. */
export const calmJury = (...present: readonly string[]): Jury => ({
  present: () => present,
  isVerified: () => false,
  onDivided: (_item, workers) => {
    throw new Error(`${workers.join(" and ")} disagree`);
  },
  onDissent: () => {},
  onArrived: () => {},
  onResult: () => {},
  onBroken: () => {},
});
