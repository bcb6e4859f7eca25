import { realpath } from "node:fs/promises";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { guardWrites } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig } from "#lib/config/index";
import { isLockstepError, type LockstepError } from "#lib/core/errors/index";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsLease } from "#lib/wire/nats/leader-lease";
import { natsSettings } from "./event-publishing.js";
import { jobFence } from "./job-fence.js";
import { claimOutputDirectory, type OutputClaim } from "./output-directory.js";
import { RunStore } from "./store-claim.js";
import { tellTakenPorts } from "./taken-port.js";

interface LeadOptions {
  /** Called once, when another process leads because this one was silent. */
  readonly onLost: (error: LockstepError) => void;
  /** A line for a person who waits. */
  readonly onWaiting: (text: string) => void;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

/** The output directory, and what of a store is this process's with it. */
export interface LeadClaim extends OutputClaim {
  readonly store: RunStore;
}

function withStore(
  config: ResolvedConfig,
  claim: OutputClaim,
  { onWaiting: note, ...waiting }: LeadOptions,
): LeadClaim {
  const store = new RunStore(config, claim.epoch, { note, ...waiting });
  const release = async (): Promise<void> => {
    await store.release();
    await claim.release();
  };
  return { epoch: claim.epoch, store, release };
}

/**
 * Decides which of several coordinators leads a run. Who leads has a larger epoch than all who led before; with it
 * shards and files refuse those.
 */
interface LeaderLease {
  /** Waits until this process leads, where it stands by. @throws E_OUTPUT_DIR_IN_USE where it does not */
  lead(options: LeadOptions): Promise<LeadClaim>;
}

/** Who leads by the configuration: by a lease in NATS where one is named, else by files of the output directory. */
export function leaderLease(config: ResolvedConfig): LeaderLease {
  const { nats_lease: name, standby } = config;
  const lease = name === null ? fileLease(config) : natsLease(config, name);
  if (!standby) return lease;
  return {
    lead: async (options) => {
      await tellTakenPorts(config, options.onWaiting);
      return lease.lead(options);
    },
  };
}

/** Who owns the output directory leads. */
const fileLease = (config: ResolvedConfig): LeaderLease => ({
  lead: async (options) => {
    const { output_dir: directory, standby } = config;
    const fence = jobFence();
    const claim = await claimOutputDirectory(directory, { ...options, standby, fence });
    return withStore(config, claim, options);
  },
});

/** Between two attempts of one that stands by at a server that is away. */
const retryMs = 1_000;

/** Who holds the lease leads, and takes the output directory from whoever had it. */
const natsLease = (config: ResolvedConfig, name: string): LeaderLease => ({
  lead: async (options) => {
    const { onLost, onWaiting, signal } = options;
    const { output_dir: directory, standby } = config;
    const link = await openLink(config, { onWaiting, signal });
    try {
      const holder = `process ${process.pid} on ${hostname()}`;
      const lease = await NatsLease.acquire(link, {
        ...{ name, holder, standby, onWaiting, onLost, signal },
      });
      try {
        const claim = await claimOutputDirectory(directory, {
          ...{ onLost, onWaiting, signal, fence: jobFence() },
          decidedEpoch: lease.epoch,
        });
        const paths = [await realpath(directory), resolve(directory)];
        const endGuard = guardWrites(paths, () => lease.assertHeld());
        const release = async (): Promise<void> => {
          await claim.release();
          endGuard();
          await lease.release();
          await link.close();
        };
        try {
          // Files may have come further than the lease, which had another name then.
          await lease.raise(claim.epoch);
          return withStore(config, { epoch: claim.epoch, release }, options);
        } catch (error) {
          await release();
          throw error;
        }
      } catch (error) {
        await lease.release();
        throw error;
      }
    } catch (error) {
      await link.close();
      throw error;
    }
  },
});

/** One that stands by waits for a server that is away. */
async function openLink(
  config: ResolvedConfig,
  { onWaiting, signal }: Pick<LeadOptions, "onWaiting" | "signal">,
): Promise<NatsLink> {
  const settings = natsSettings(config);
  if (settings === undefined) throw new Error("nats_lease without nats_url was let through");
  for (let isTold = false; ; isTold = true) {
    try {
      return await NatsLink.open(settings, {
        ...{ role: "coordinator", name: "lockstep lease", onNews: onWaiting },
      });
    } catch (error) {
      const isAway = isLockstepError(error) && error.code === "E_NATS_UNAVAILABLE";
      if (!isAway || !config.standby) throw error;
      if (!isTold) onWaiting(`${error.message} It is tried again.`);
      await delay(retryMs, undefined, { signal });
    }
  }
}
