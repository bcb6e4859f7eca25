import { randomUUID } from "node:crypto";
import { Coordinator } from "#coordinator/coordinator";
import type { CoordinatorOptions, RunOutcome } from "#coordinator/options";
import { startShardThread } from "#coordinator/reducer/client";
import type { ShardStatus } from "#lib/wire/reducer-messages";
import { readRunJournal, RunJournal } from "#coordinator/run-journal";
import type { RecoveredRun } from "#coordinator/run-state";
import type { ShardHandle, StartShard } from "#coordinator/shards";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { runWorker } from "#worker/worker";
import { coordinatorOptions, EventRecorder } from "./cluster.js";
import { freePorts } from "./ports.js";

/** Of a shard, what changes or asks what it holds; and of the journal, what is written. */
const shardCalls = [
  ...["load", "publishInitial", "status", "changeFence", "openStep", "restartStep", "reduce"],
  ...["penalise", "keepSquares", "fisherSums", "finishFisher", "measure", "apply", "discard"],
  "snapshot",
];
const maxShards = 4;
const journalCalls = ["state", "agreed", "reopened"];

/** Dies at a call, before or after it has had its effect; nothing gets through to a dead one. */
class Life {
  readonly calls: string[] = [];
  readonly #diesAt: number;
  readonly #isAfter: boolean;
  #isDead = false;
  readonly #onDeath: (error: unknown) => void;

  constructor(diesAt: number, isAfter: boolean, onDeath: (error: unknown) => void) {
    this.#diesAt = diesAt;
    this.#isAfter = isAfter;
    this.#onDeath = onDeath;
  }

  /** The same object, whose calls this life may die of. */
  bounded<T extends object>(object: T, names: readonly string[], others: Partial<T> = {}): T {
    return new Proxy(object, {
      get: (target, name) => {
        if (name in others) return others[name as keyof T];
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (!names.includes(String(name))) return value.bind(target);
        return async (...given: unknown[]): Promise<unknown> => {
          this.#assertAlive();
          const call = this.calls.push(String(name)) - 1;
          if (call === this.#diesAt && !this.#isAfter) this.#die();
          const answer: unknown = await value.apply(target, given);
          if (call === this.#diesAt) this.#die();
          this.#assertAlive();
          return answer;
        };
      },
    });
  }

  #assertAlive(): void {
    if (this.#isDead) throw killed();
  }

  #die(): never {
    this.#isDead = true;
    this.#onDeath(killed());
    throw killed();
  }
}

/** What a coordinator ends by without a word to anybody. */
const killed = (): LockstepError =>
  new LockstepError("E_STALE_COORDINATOR", { expected: "life", got: "death" });

export interface Death {
  /** Number of a call of the first coordinator, from 0; a negative one never comes. */
  readonly diesAt: number;
  /** Whether the call has had its effect. */
  readonly isAfter: boolean;
  /** Number of a call after which the second one dies, too. */
  readonly again?: number;
}

export interface SurvivedRun {
  readonly outcome: RunOutcome;
  readonly statuses: readonly ShardStatus[];
  /** Of the first coordinator. */
  readonly calls: readonly string[];
  readonly numLives: number;
  readonly numRecovered: number;
  readonly numEngines: number;
}

/**
 * A run of the test job with shards and a worker that outlive its coordinators: the first one dies at a call, and
 * another one takes its place.
 *
 * @param hooks.died called at each death
 * @param hooks.goesOn what the next one makes of what was left
 */
export async function runKilledAt(
  totalSteps: number,
  folder: string,
  { diesAt, isAfter, again = -1 }: Death,
  overrides: Partial<CoordinatorOptions>,
  {
    died = () => {},
    goesOn = (left) => left,
  }: {
    readonly died?: () => void;
    readonly goesOn?: (left: RecoveredRun) => RecoveredRun;
  } = {},
): Promise<SurvivedRun> {
  const shards: ShardHandle[] = [];
  const path = `${folder}/${randomUUID()}`;
  let calls: readonly string[] = [];
  let [numLives, numRecovered, numEngines] = [0, 0, 0];
  // The coordinator's, and its shards'.
  const listenPort = await freePorts(1 + maxShards);
  const stop = new AbortController();
  let worker: Promise<unknown> | undefined;
  try {
    for (;;) {
      numLives += 1;
      const recorder = new EventRecorder();
      let fail: (error: unknown) => void = () => {};
      const callOfDeath = [diesAt, again][numLives - 1] ?? -1;
      const life = new Life(callOfDeath, isAfter || numLives > 1, (error) => {
        fail(error);
        died();
      });
      const startShard: StartShard = async (options) => {
        const kept = shards[options.shardIndex] ?? (await startShardThread(options));
        shards[options.shardIndex] = kept;
        return life.bounded(kept, shardCalls, { close: async () => {} });
      };
      const recovery = await readRunJournal(path).catch((error: unknown) => {
        if (isLockstepError(error) && error.code === "E_FILE_NOT_FOUND") return undefined;
        throw error;
      });
      const journal = new RunJournal(path, { runId: "run", epoch: 1 }, { note: () => {} });
      const coordinator = new Coordinator({
        ...coordinatorOptions(totalSteps, recorder.bus, overrides),
        ...{ runId: "run", epoch: 1, listenPort, startShard },
        journal: life.bounded(journal, journalCalls),
        ...(recovery === undefined ? {} : { recovery: goesOn(recovery) }),
      });
      fail = (error) => coordinator.fail(error);
      try {
        const started = await coordinator.start();
        if (started.isRecovered) numRecovered += 1;
        worker ??= runWorker({
          coordinatorAddress: started.controlAddress,
          deviceKind: "fake",
          engineModule: new URL("./fake-engine.js", import.meta.url).href,
          reconnectTimeoutMs: 20_000,
          observer: { engineCreated: () => void numEngines++ },
          signal: stop.signal,
        });
        const outcome = await coordinator.run();
        if (numLives === 1) calls = life.calls;
        const statuses = await Promise.all(shards.map((shard) => shard.status()));
        await worker;
        return { outcome, statuses, calls, numLives, numRecovered, numEngines };
      } catch (error) {
        if (!isLockstepError(error) || error.code !== "E_STALE_COORDINATOR") throw error;
      } finally {
        await journal.close();
      }
    }
  } finally {
    stop.abort();
    await worker?.catch(() => {});
    await Promise.allSettled(shards.map((shard) => shard.close()));
  }
}
