import { isMainThread, workerData } from "node:worker_threads";
import type { StartShardOptions } from "#coordinator/shards";

/**
 * Loaded into a run's processes (`--import`): ends the thread of a shard in the middle of a call.
 *   LOCKSTEP_TEST_SHARD_CRASH="shard:method:nth ..."   one for each life of the run, from the first on; the last one
 *                                                      for those after it too where it ends with "+"
 */
const crashes = process.env["LOCKSTEP_TEST_SHARD_CRASH"]?.split(" ") ?? [];
const data = (isMainThread ? undefined : workerData) as StartShardOptions | undefined;

if (data?.shardIndex !== undefined && data.life !== undefined) {
  const { ShardReducer } = await import("#coordinator/reducer/shard-reducer");
  const life = data.life.epoch % 1_024;
  const last = crashes.at(-1) ?? "";
  const spec = crashes[life] ?? (last.endsWith("+") ? last : "");
  const [shard, method = "", nth] = spec.replace("+", "").split(":");
  if (Number(shard) === data.shardIndex && spec !== "") {
    const prototype = ShardReducer.prototype as unknown as Record<
      string,
      (...args: unknown[]) => unknown
    >;
    const call = prototype[method];
    let left = Number(nth);
    prototype[method] = function crashing(this: unknown, ...args: unknown[]): unknown {
      left -= 1;
      if (left === 0) process.exit(3);
      return call?.apply(this, args);
    };
  }
}
