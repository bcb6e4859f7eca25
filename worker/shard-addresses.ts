import { connect } from "node:net";
import { awakeMs } from "#lib/core/awake-clock";
import { hostPort, isHost, isWildcard, splitAddress } from "#lib/core/address";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { ShardTransfers } from "./transfers.js";

/** After which the coordinator is asked whether it is still there: it may have come back with other shards. */
const askAgainMs = 3_000;
/** How long one try to find out what is wrong may take. */
const diagnosisMs = 5_000;

/**
 * Where a worker calls the shards. An address without a host means the host under which it reached the
 * coordinator.
 *
 * @param sent as the coordinator answered
 * @param coordinator host:port that this worker calls
 * @throws E_SHARD_ADDRESS
 */
export function shardAddresses(sent: readonly string[], coordinator: string): string[] {
  const refuse = (address: string, reason: string): never => {
    throw new LockstepError("E_SHARD_ADDRESS", { address, coordinator, reason });
  };
  if (sent.length === 0) refuse("", "there is none");
  return sent.map((address) => {
    const { host, port } = splitAddress(address);
    if (!/:\d{1,5}$/.test(address) || port < 1 || port > 65_535) {
      return refuse(address, "it has no port");
    }
    if (host === "") return hostPort(splitAddress(coordinator).host, port);
    if (isWildcard(host)) return refuse(address, "it stands for all addresses of a machine");
    if (!isHost(host)) return refuse(address, "its host is neither a name nor an address");
    return address;
  });
}

/**
 * Waits for connections to all shards, for a limited time: where the coordinator answers and its shards do
 * not, no number of registrations helps.
 *
 * @param coordinator host:port, for the message
 * @param askCoordinator throws where the coordinator is away or does not know this worker any more
 * @throws E_SHARD_UNREACHABLE, unless `signal` is aborted; what `askCoordinator` throws
 */
export async function untilShardsReachable(
  transfers: ShardTransfers,
  options: {
    readonly coordinator: string;
    readonly askCoordinator: () => Promise<void>;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { coordinator, askCoordinator, timeoutMs, signal } = options;
  const since = awakeMs();
  for (;;) {
    const passedMs = awakeMs() - since;
    const patienceMs = Math.max(0, Math.min(timeoutMs - passedMs, askAgainMs));
    const address = await transfers.firstUnreachable(patienceMs, signal);
    if (address === undefined || signal.aborted) return;
    await askCoordinator();
    const seconds = Math.round((awakeMs() - since) / 1000);
    if (awakeMs() - since < timeoutMs) continue;
    const reason = await whyUnreachable(address);
    throw new LockstepError("E_SHARD_UNREACHABLE", { address, coordinator, seconds, reason });
  }
}

/** The shards cannot be called, whoever tries. */
export const isShardError = (error: unknown): boolean =>
  isLockstepError(error) &&
  (error.code === "E_SHARD_ADDRESS" || error.code === "E_SHARD_UNREACHABLE");

async function whyUnreachable(address: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(splitAddress(address));
    const end = (reason: string): void => {
      socket.destroy();
      resolve(reason);
    };
    socket.setTimeout(diagnosisMs, () => end("nothing answers"));
    socket.once("error", (error) => end(error.message));
    socket.once("connect", () =>
      end(
        "its port answers, but no secured connection comes about: check the names in its certificate",
      ),
    );
  });
}
