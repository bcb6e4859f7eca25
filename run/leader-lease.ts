import type { ResolvedConfig } from "#lib/config/index";
import type { LockstepError } from "#lib/core/errors/index";
import { jobFence } from "./job-fence.js";
import { claimOutputDirectory, type OutputClaim } from "./output-directory.js";

interface LeadOptions {
  /** Called once, when another process leads because this one was silent. */
  readonly onLost: (error: LockstepError) => void;
  /** A line for a person who waits. */
  readonly onWaiting: (text: string) => void;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

/**
 * Decides which of several coordinators leads a run. Who leads has a larger epoch than all who led before; with it
 * shards and files refuse those.
 */
export interface LeaderLease {
  /** Waits until this process leads, where it stands by. @throws E_OUTPUT_DIR_IN_USE where it does not */
  lead(options: LeadOptions): Promise<OutputClaim>;
}

/** Who owns the output directory leads. */
export const fileLease = ({
  output_dir: directory,
  standby,
}: Pick<ResolvedConfig, "output_dir" | "standby">): LeaderLease => ({
  lead: (options) => claimOutputDirectory(directory, { ...options, standby, fence: jobFence() }),
});
