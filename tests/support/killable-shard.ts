import { once } from "node:events";
import { setImmediate } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import { startShardThread } from "#coordinator/reducer/client";
import type { ShardHandle, StartShard } from "#coordinator/shards";
import { LockstepError } from "#lib/core/errors/index";

/** When a shard's thread ends: before a call of it, in it, or after it, whose answer then nobody hears or somebody does. */
export const deaths = ["before", "during", "unheard", "after"] as const;
export type Death = (typeof deaths)[number];

/** What happens to one copy of a shard. */
export interface Fate {
  /** 1 for its first call. */
  readonly at?: number;
  /** In place of `at`: the nth call of that name. */
  readonly call?: string;
  readonly nth?: number;
  /** Absent: it lives. */
  readonly death?: Death;
  numCalls: number;
  /** Calls by name, as they came. */
  readonly calls: string[];
}

export const fate = (of: Omit<Fate, "numCalls" | "calls"> = {}): Fate => ({
  ...of,
  numCalls: 0,
  calls: [],
});

/** One starts after the other: so a thread that was made is that of the shard. */
let last: Promise<unknown> = Promise.resolve();

async function startAlone(
  options: Parameters<StartShard>[0],
): Promise<{ readonly handle: ShardHandle; readonly thread: Worker }> {
  const started = last.then(async () => {
    const made = once(process, "worker") as Promise<[Worker]>;
    const handle = await startShardThread(options);
    const [thread] = await made;
    return { handle, thread };
  });
  last = started.catch(() => {});
  return started;
}

/** Resolves when every thread that was asked for is there. */
export async function threadsStarted(): Promise<void> {
  await last;
  await setImmediate();
}

/** Starts shards in threads, of which the first has a fate; what comes in its place lives. */
export function startKillable(own: Fate): StartShard {
  let isFirst = true;
  return async (options) => {
    const { handle, thread } = await startAlone(options);
    if (!isFirst) return handle;
    isFirst = false;
    const end = async (): Promise<void> => {
      await thread.terminate();
    };
    return new Proxy(handle, {
      get(target, name): unknown {
        const value: unknown = Reflect.get(target, name, target);
        const isCall = typeof value === "function" && !/^on[A-Z]|^close$/.test(String(name));
        if (typeof value !== "function") return value;
        if (!isCall) return value.bind(target);
        return async (...args: readonly unknown[]): Promise<unknown> => {
          own.numCalls += 1;
          own.calls.push(String(name));
          const isTime =
            own.numCalls === own.at ||
            (own.call === name && own.calls.filter((each) => each === name).length === own.nth);
          const death = isTime ? own.death : undefined;
          if (death === "before") await end();
          const answer = Promise.resolve(value.apply(target, args));
          answer.catch(() => {});
          if (death === "during") await end();
          const heard = await answer;
          if (death === "unheard" || death === "after") await end();
          if (death === "unheard") {
            const { shardIndex } = options;
            throw new LockstepError("E_SHARD_FAILED", { shardIndex, reason: "unheard" });
          }
          return heard;
        };
      },
    });
  };
}
