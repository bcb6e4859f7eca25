import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { isMainThread } from "node:worker_threads";
import type { Phase } from "./schedule.js";

/**
 * Loaded into the real processes of a run before their program (`--import`): at the points of their loops they
 * ask the director over its socket and wait for its word, and it moves their wall clock.
 */
const socketPath = process.env["LOCKSTEP_CHAOS_SOCKET"];
const role = process.argv[2];

const watched = { coordinator: watchCoordinator, worker: watchWorker, reducer: watchReducer };
const watch = role !== undefined && role in watched && watched[role as keyof typeof watched];

if (isMainThread && socketPath !== undefined && watch) await watch(openGate(socketPath));

type Gate = (phase: Phase) => Promise<void>;

function openGate(path: string): Gate {
  const socket = connect(path);
  // Only a process that waits for its director's word stays for it.
  socket.unref();
  let isOpen = true;
  const waiting = new Map<number, () => void>();
  const release = (): void => {
    isOpen = false;
    for (const go of waiting.values()) go();
    waiting.clear();
    socket.unref();
  };
  socket.on("error", release);
  socket.on("close", release);
  const lines = createInterface({ input: socket });
  // It passes the socket's errors on.
  lines.on("error", () => {});
  lines.on("line", (line) => {
    const { go, clockMs } = JSON.parse(line) as { go?: number; clockMs?: number };
    if (clockMs !== undefined) moveClock(clockMs);
    if (go === undefined) return;
    waiting.get(go)?.();
    waiting.delete(go);
    if (waiting.size === 0) socket.unref();
  });
  const send = (fact: object): void => {
    socket.write(`${JSON.stringify(fact)}\n`);
  };
  send({ role, pid: process.pid });
  let numAsked = 0;
  return async (phase) => {
    if (!isOpen) return;
    const id = numAsked++;
    const answered = new Promise<void>((resolve) => waiting.set(id, resolve));
    socket.ref();
    send({ id, phase });
    await answered;
  };
}

/** Wall time jumps; monotonic time does not, as on a machine whose clock is set. */
function moveClock(byMs: number): void {
  const Before = globalThis.Date;
  const now = (): number => Before.now() + byMs;
  globalThis.Date = class extends Before {
    constructor(...given: readonly unknown[]) {
      super(...((given.length === 0 ? [now()] : given) as [number]));
    }

    static override now(): number {
      return now();
    }
  } as DateConstructor;
}

/**
 * Puts something around an asynchronous method of a class.
 * @param around gets the call, and its arguments, which it may change
 */
function wrap<Class extends object>(
  prototype: Class,
  name: keyof Class,
  around: (call: () => Promise<unknown>, args: unknown[]) => Promise<unknown>,
): void {
  const method = prototype[name] as (...args: unknown[]) => Promise<unknown>;
  async function wrapped(this: Class, ...args: unknown[]): Promise<unknown> {
    return around(async () => method.apply(this, args), args);
  }
  prototype[name] = wrapped as Class[keyof Class];
}

async function watchCoordinator(gate: Gate): Promise<void> {
  const { ShardGroup } = await import("#coordinator/shards");
  const before = (name: keyof InstanceOf<typeof ShardGroup>, phase: Phase): void =>
    wrap(ShardGroup.prototype, name, async (call) => {
      await gate(phase);
      return call();
    });
  before("load", "starting");
  before("openStep", "opening");
  before("reduce", "reducing");
  before("apply", "applying");
  before("hold", "saving");
  before("finalState", "finishing");
  const { rename } = fs;
  fs.rename = async (from, to) => {
    if (/checkpoint-\d+$/.test(String(to))) await gate("placing");
    return rename(from, to);
  };
  syncBuiltinESMExports();
}

type InstanceOf<Class extends { readonly prototype: unknown }> = Class["prototype"];

async function watchReducer(gate: Gate): Promise<void> {
  const { ReducerProcess } = await import("#reducer/reducer-process");
  wrap(ReducerProcess.prototype, "call", async (call, args) => {
    const [{ kind }] = args as Parameters<InstanceOf<typeof ReducerProcess>["call"]>;
    await gate(`shard:${kind}` as Phase);
    return call();
  });
}

async function watchWorker(gate: Gate): Promise<void> {
  const { CoordinatorLink } = await import("#worker/coordinator-link");
  const { EngineClient } = await import("#worker/engine-client");
  const { ShardTransfers } = await import("#worker/transfers");
  const link = CoordinatorLink.prototype;
  wrap(link, "register", async (call) => {
    await gate("registering");
    return call();
  });
  wrap(link, "nextTask", async (call) => {
    await gate("asking");
    return call();
  });
  wrap(link, "complete", async (call) => {
    await gate("pushed");
    const reply = await call();
    await gate("completed");
    return reply;
  });
  const engine = EngineClient.prototype;
  wrap(engine, "accumulate", async (call, args) => {
    const [, , isFirst, buffer] = args as Parameters<typeof engine.accumulate>;
    if (isFirst) await gate("leased");
    const sums = await call();
    if (buffer !== undefined) await gate("computed");
    return sums;
  });
  wrap(engine, "evaluate", async (call) => {
    await gate("evaluating");
    return call();
  });
  const transfers = ShardTransfers.prototype;
  wrap(transfers, "push", async (call, args) => {
    const [, , options] = args as Parameters<typeof transfers.push>;
    const onChunk = async (): Promise<void> => gate("pushing");
    args[2] = { ...options, onChunk } satisfies typeof options;
    return call();
  });
  wrap(transfers, "pull", async (call) => {
    await gate("pulling");
    return call();
  });
}
