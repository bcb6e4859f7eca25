import { existsSync } from "node:fs";
import { parseConfigText } from "#lib/config/index";
import type { Job } from "#lib/queue/job";

/**
 * Why a job cannot be run on this machine; undefined: it can.
 *
 * @param replaced keys that the agent sets instead of the job
 */
export function whyNotHere(job: Job, replaced: ReadonlySet<string>): string | undefined {
  if (!existsSync(job.directory)) {
    return `this machine has no directory ${job.directory}, where it was submitted`;
  }
  const { step, outputDir } = job;
  const isElsewhere = replaced.has("output_dir") || replaced.has("checkpoint_store");
  if (step === 0 || isElsewhere || existsSync(outputDir) || hasStore(job)) return undefined;
  return `this machine has no ${outputDir}, where the job has come to step ${step}: its agents need that directory in common, or the job a checkpoint_store`;
}

function hasStore({ config, flags }: Job): boolean {
  if (flags.some((flag) => /^--checkpoint[-_]store\b/.test(flag))) return true;
  try {
    const store = parseConfigText(config, "job.yaml").get("checkpoint_store")?.value;
    return store !== undefined && store !== null;
  } catch {
    // The run refuses it by name.
    return true;
  }
}
