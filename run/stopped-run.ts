import type { ResumePoint } from "./resume.js";
import type { RunResult } from "./run-handle.js";

/** The run was stopped before it had something to save. */
export class StoppedBeforeTraining extends Error {}

/** What a run came to that made no step after this one. */
export const stoppedAt = (reached: ResumePoint | undefined): RunResult => ({
  ...{ outcome: "interrupted", step: reached?.state.step ?? 0, directory: reached?.directory },
  ...{ mastersSha256: undefined, seconds: 0 },
});
