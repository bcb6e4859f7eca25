import { lookup } from "node:dns/promises";
import os from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { ResolvedConfig } from "#lib/config/index";
import { bareHost, hostPort, isWildcard, loopbackOf, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";

type Listening = Pick<ResolvedConfig, "listen" | "advertise_host">;

/** A cluster's name server knows a pod's name soon after it starts. */
const lookupAttempts = 10;
const lookupPauseMs = 1_000;

/**
 * Refuses a host to advertise that nobody knows, before anything costs time.
 *
 * @throws E_CONFIG_INVALID
 */
export async function checkAdvertisedName(
  { advertise_host: host }: Listening,
  { pauseMs = lookupPauseMs, signal }: { pauseMs?: number; signal?: AbortSignal } = {},
): Promise<void> {
  if (host === null) return;
  for (let attempt = 1; ; attempt++) {
    try {
      await lookup(bareHost(host));
      return;
    } catch (error) {
      if (attempt === lookupAttempts || signal?.aborted === true) {
        throw new LockstepError("E_CONFIG_INVALID", {
          key: "advertise_host",
          expected: "a name that name servers know, or an address",
          got: `${JSON.stringify(host)} (${error instanceof Error ? error.message : String(error)})`,
          where: "",
        });
      }
      await delay(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => {});
    }
  }
}

/** host:port for workers that run on this machine. */
export const addressHere = ({ listen, advertise_host }: Listening, port: number): string =>
  hostPort(advertise_host ?? loopbackOf(splitAddress(listen).host), port);

/** host:port at which workers of other machines may reach the coordinator, the likeliest first. */
export function addressesElsewhere(
  { listen, advertise_host }: Listening,
  port: number,
  interfaces: NodeJS.Dict<os.NetworkInterfaceInfo[]> = os.networkInterfaces(),
): string[] {
  const { host } = splitAddress(listen);
  if (advertise_host !== null || !isWildcard(host)) {
    return [hostPort(advertise_host ?? host, port)];
  }
  const all = Object.values(interfaces).flatMap((each) => each ?? []);
  const called = all.filter(
    ({ internal, family, address }) =>
      !internal && !isLinkLocal(address) && (family === "IPv4" || host.includes(":")),
  );
  // The version of IP that most networks use first.
  const ordered = called.sort((a, b) => a.family.localeCompare(b.family));
  return ordered.map(({ address }) => hostPort(address, port));
}

const isLinkLocal = (address: string): boolean => /^(169\.254\.|fe[89ab])/i.test(address);

/** The address in a line of `howToJoin`; undefined: the line is another one. */
export const joinAddress = (line: string): string | undefined =>
  /^Workers join with: lockstep worker --coordinator (\S+)/.exec(line)?.[1];

/** How workers join, for a person. */
export function howToJoin(config: Listening, port: number): string {
  const [first, ...others] = addressesElsewhere(config, port);
  const line = `Workers join with: lockstep worker --coordinator ${first ?? addressHere(config, port)}`;
  if (first === undefined) return `${line} (this machine has no address that others can call)`;
  if (others.length === 0) return line;
  return `${line} (this machine has other addresses too: ${others.join(", ")})`;
}
