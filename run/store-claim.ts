import { randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { isRecord } from "#lib/checkpoint/file-reader";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectStore } from "#lib/store/object-store";
import { type JobFence, jobFence } from "./job-fence.js";
import { storeOf } from "./open-store.js";

/** Below a prefix: whose it is. */
const storeClaimKey = "lockstep-claim.json";
const format = "lockstep-store-claim-1";
const maxClaimBytes = 64 * 1024;
/** Others may claim it at the same time; of them one gets it each time. */
const maxAttempts = 20;
/** An owner says that it lives this often. */
const defaultBeatMs = 20_000;
/** One of whom nothing else can be known counts as gone after so long without a sign of life. */
const defaultSilentMs = 120_000;

/** Who asks for a prefix. */
interface Claimant {
  /** Random, of one claim. */
  readonly owner: string;
  /** "" while a run that starts anew has not begun. */
  readonly runId: string;
  /** Of the output directory or the lease, and the number of its claim: of two with one directory the higher one has it. */
  readonly output: string;
  readonly outputEpoch: number;
  readonly fence: JobFence | null;
  readonly host: string;
  readonly pid: number;
  /** ISO 8601. */
  readonly since: string;
}

interface ClaimRecord extends Claimant {
  /** Rises with each claim. */
  readonly epoch: number;
  /** Rises while the owner lives. */
  readonly beats: number;
  readonly isReleased: boolean;
}

/** How often a sign of life is looked for until then: a process that was stopped itself sees at least one of them. */
const looksWhileSilent = 24;

interface Pace {
  /** @default 20000 */
  readonly beatMs?: number;
  /** @default 120000 */
  readonly silentMs?: number;
}

interface Waiting {
  /** Gets a line for a person. */
  readonly note: (text: string) => void;
  /** Nobody waits any more. */
  readonly signal: AbortSignal;
  /** Called once, when another process has the prefix since. */
  readonly onLost: (error: LockstepError) => void;
}

const held = new Map<string, StoreClaim>();

/**
 * To be asked before something in a store becomes visible or goes. A process that has claimed nothing there is not held
 * up.
 *
 * @throws E_CHECKPOINT_STORE_LOST where another process has the prefix since
 */
export const assertStoreHeld = async (store: ObjectStore): Promise<void> =>
  held.get(store.url())?.assertHeld();

/** As `ObjectStore.putIf` has it: of an object that is to take no other one's place, as far as the store can tell. */
export const conditionOfNew = (store: ObjectStore): null | "any" =>
  held.get(store.url())?.isConditional === false ? "any" : null;

/** What a run's process has of the store that its configuration names, where it names one. */
export class RunStore {
  readonly #config: ResolvedConfig;
  readonly #outputEpoch: number;
  readonly #waiting: Waiting & Pace;
  #claim: StoreClaim | undefined;

  constructor(config: ResolvedConfig, outputEpoch: number, waiting: Waiting & Pace) {
    this.#config = config;
    this.#waiting = waiting;
    this.#outputEpoch = outputEpoch;
  }

  /**
   * Claims the prefix for this process, or gives the claim its run. Where another run has it that is not known to have
   * ended, a sign of life of that is waited for; who is stopped meanwhile has claimed nothing.
   *
   * @param runId "" where the run is still to begin
   * @throws E_CHECKPOINT_STORE_IN_USE, E_JOB_TAKEN; E_CHECKPOINT_STORE where the store refuses to be written
   */
  async claim(runId: string): Promise<void> {
    const store = await storeOf(this.#config);
    if (store === undefined) return;
    if (this.#claim !== undefined) return this.#claim.belongsTo(runId);
    const { output_dir: directory, overwrite_output_dir: isReplaced, nats_lease } = this.#config;
    // Who leads by a lease has it for all of its output directories, whose claims have its epochs.
    const output = nats_lease === null ? await idOf(directory) : `lease ${nats_lease}`;
    const claimant: Claimant = {
      ...{ owner: randomUUID(), runId, output },
      ...{ outputEpoch: this.#outputEpoch, fence: jobFence() ?? null },
      ...{ host: hostname(), pid: process.pid, since: new Date().toISOString() },
    };
    // Whoever has lost the output directory claims nothing.
    assertWritable(directory);
    this.#claim = await StoreClaim.take(store, claimant, {
      ...{ directory, isReplaced, ...this.#waiting },
    });
  }

  /** Leaves the prefix to whoever comes. */
  async release(): Promise<void> {
    await this.#claim?.release();
  }
}

/** A prefix that this process alone makes checkpoints visible in. */
class StoreClaim {
  readonly #store: ObjectStore;
  /** Whether the store keeps to conditions of writes. */
  readonly isConditional: boolean;
  #record: ClaimRecord;
  #tag: string;
  #lost: LockstepError | undefined;
  readonly #beat: NodeJS.Timeout;
  readonly #onLost: (error: LockstepError) => void;

  private constructor(
    store: ObjectStore,
    isConditional: boolean,
    { record, tag }: { readonly record: ClaimRecord; readonly tag: string },
    { beatMs, onLost }: Pick<Waiting, "onLost"> & { readonly beatMs: number },
  ) {
    this.#store = store;
    this.isConditional = isConditional;
    this.#record = record;
    this.#tag = tag;
    this.#onLost = onLost;
    // What is written asks for itself, so that nobody is held up by this.
    this.#beat = setInterval(() => void this.#sayItLives().catch(() => {}), beatMs).unref();
    held.set(store.url(), this);
  }

  /** @returns undefined where nobody waits any more */
  static async take(
    store: ObjectStore,
    claimant: Claimant,
    {
      beatMs = defaultBeatMs,
      silentMs = defaultSilentMs,
      ...how
    }: Pace & Waiting & { readonly directory: string; readonly isReplaced: boolean },
  ): Promise<StoreClaim | undefined> {
    const isConditional = await store.hasConditions(`lockstep-probe-${claimant.owner}`);
    if (!isConditional) {
      how.note(
        `warning: ${store.url()} does not support conditional writes (If-None-Match, If-Match): two runs that begin there at the same time are not kept apart. Give each run a checkpoint_store of its own`,
      );
    }
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const found = await store.getTagged(storeClaimKey, maxClaimBytes);
      const before = found && parseClaim(found.bytes);
      if (found !== undefined && before?.owner === claimant.owner) {
        const { tag } = found;
        return new StoreClaim(store, isConditional, { record: before, tag }, { ...how, beatMs });
      }
      if (found !== undefined && !mayTake(store, before, claimant, how)) {
        await untilSilent(store, { record: before, tag: found.tag }, { ...how, silentMs });
        if (how.signal.aborted) return undefined;
      }
      const epoch = (before?.epoch ?? 0) + 1;
      const record = { ...claimant, epoch, beats: 0, isReleased: false };
      // What came of it is read: an answer may be lost.
      await store.putIf(
        storeClaimKey,
        textOf(record),
        isConditional ? (found?.tag ?? null) : "any",
      );
    }
    const problem = "others claim it again and again at the same time";
    throw new LockstepError("E_CHECKPOINT_STORE", { place: store.url(storeClaimKey), problem });
  }

  async belongsTo(runId: string): Promise<void> {
    if (this.#record.runId !== runId) await this.#rewrite({ runId });
  }

  async assertHeld(): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost;
    for (let attempt = 1; ; attempt++) {
      const found = await this.#store.getTagged(storeClaimKey, maxClaimBytes);
      const record = found && parseClaim(found.bytes);
      if (found !== undefined && record?.owner === this.#record.owner) {
        this.#tag = found.tag;
        this.#record = record;
        return;
      }
      // Somebody removed it: it is made again where nobody else is quicker.
      if (found === undefined && attempt < maxAttempts) {
        await this.#store.putIf(
          ...([storeClaimKey, textOf(this.#record), this.isConditional ? null : "any"] as const),
        );
        continue;
      }
      clearInterval(this.#beat);
      this.#lost = new LockstepError("E_CHECKPOINT_STORE_LOST", {
        ...{ place: this.#store.url(), by: describe(record) },
      });
      this.#onLost(this.#lost);
      throw this.#lost;
    }
  }

  async release(): Promise<void> {
    clearInterval(this.#beat);
    held.delete(this.#store.url());
    if (this.#lost !== undefined) return;
    // Where that fails, a run of the same output directory, job or id finds it all the same.
    await this.#rewrite({ isReleased: true }).catch(() => {});
  }

  async #sayItLives(): Promise<void> {
    await this.#rewrite({ beats: this.#record.beats + 1 });
  }

  async #rewrite(change: Partial<ClaimRecord>): Promise<void> {
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      await this.assertHeld();
      const record = { ...this.#record, ...change };
      const expected = this.isConditional ? this.#tag : "any";
      // It may have been written since it was read, by a sign of life.
      if (await this.#store.putIf(storeClaimKey, textOf(record), expected)) {
        this.#record = record;
        return;
      }
    }
  }
}

/**
 * Whether a claim may be followed at once.
 *
 * @throws E_JOB_TAKEN, E_OUTPUT_DIR_LOST
 */
function mayTake(
  store: ObjectStore,
  before: ClaimRecord | undefined,
  { runId, output, outputEpoch, fence }: Claimant,
  { directory, isReplaced }: { readonly directory: string; readonly isReplaced: boolean },
): boolean {
  if (before === undefined) return isReplaced;
  if (fence !== null && before.fence?.job === fence.job) {
    if (before.fence.epoch <= fence.epoch) return true;
    throw new LockstepError("E_JOB_TAKEN", { job: fence.job, directory: store.url() });
  }
  if (before.output === output) {
    if (before.outputEpoch <= outputEpoch) return true;
    throw new LockstepError("E_OUTPUT_DIR_LOST", { directory, by: describe(before) });
  }
  return isReplaced || before.isReleased || (runId !== "" && before.runId === runId);
}

/**
 * Waits until the owner of a claim has given no sign of life for long enough, or nobody waits any more.
 *
 * @throws E_CHECKPOINT_STORE_IN_USE at the first sign
 */
async function untilSilent(
  store: ObjectStore,
  { record, tag }: { readonly record: ClaimRecord | undefined; readonly tag: string },
  { note, signal, silentMs }: Waiting & { readonly silentMs: number },
): Promise<void> {
  const by = describe(record);
  note(
    `${store.url()} was claimed by ${by}, of whom nothing is known: this run begins if there is no sign of life for ${silentMs / 1000} s`,
  );
  const lookMs = silentMs / looksWhileSilent;
  for (let looks = 0; looks < looksWhileSilent && !signal.aborted; looks++) {
    await delay(lookMs, undefined, { signal }).catch(() => {});
    const now = await store.getTagged(storeClaimKey, maxClaimBytes);
    if (now?.tag === tag) continue;
    const follower = now && parseClaim(now.bytes);
    if (now === undefined || follower?.isReleased === true) return;
    const of = follower === undefined || follower.runId === "" ? "" : ` ${follower.runId}`;
    throw new LockstepError("E_CHECKPOINT_STORE_IN_USE", {
      ...{ place: store.url(), run: `another run${of}`, by: describe(follower) },
    });
  }
}

const textOf = (record: ClaimRecord): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify({ format, ...record }, null, 2)}\n`);

/** @returns undefined for what is no claim */
function parseClaim(bytes: Uint8Array): ClaimRecord | undefined {
  try {
    const parsed: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (!isRecord(parsed) || parsed["format"] !== format) return undefined;
    const { owner, runId, output, host, since, epoch, outputEpoch, pid, beats, isReleased, fence } =
      parsed;
    const isClaim =
      [owner, runId, output, host, since].every((value) => typeof value === "string") &&
      [epoch, outputEpoch, pid, beats].every((value) => Number.isSafeInteger(value)) &&
      typeof isReleased === "boolean";
    if (!isClaim) return undefined;
    const isFence =
      isRecord(fence) && typeof fence["job"] === "string" && Number.isSafeInteger(fence["epoch"]);
    return { ...(parsed as unknown as ClaimRecord), fence: isFence ? (fence as never) : null };
  } catch {
    return undefined;
  }
}

/** For a person. */
function describe(record: ClaimRecord | undefined): string {
  if (record === undefined) return "a process that did not tell its name";
  const { pid, host, since } = record;
  return `process ${pid} on ${host}, which claimed it at ${since}`;
}

/** Tells an output directory from others, wherever it is seen; made once. */
async function idOf(directory: string): Promise<string> {
  const folder = join(directory, claimFolder);
  const file = join(folder, "store.id");
  try {
    await mkdir(folder, { recursive: true });
    await writeFile(file, randomUUID(), { flag: "wx" }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    });
    const id = (await readFile(file, "utf8")).trim();
    if (/^[0-9a-f-]{36}$/.test(id)) return id;
    // Cut off by a full disk.
    await writeFile(file, randomUUID());
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    throw explainWriteError(error, file);
  }
}
