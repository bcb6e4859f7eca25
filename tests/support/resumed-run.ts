import { isLockstepError } from "#lib/core/errors/index";
import type { NatsLink } from "#lib/wire/nats/connection";
import { findRun } from "#lib/wire/nats/event-watch";
import { commandRun } from "#lib/wire/nats/run-commands";

/** Tells a run to go on, as soon as the coordinator that has it now listens. @param name undefined: the latest run */
export async function untilResumed(link: NatsLink, name: string | undefined): Promise<string> {
  for (;;) {
    try {
      return await commandRun(link, await findRun(link, name), "resume");
    } catch (error) {
      if (!isLockstepError(error) || error.code !== "E_RUN_SILENT") throw error;
    }
  }
}
