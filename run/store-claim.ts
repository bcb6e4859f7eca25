import { randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
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

/** Who asks for a prefix. */
interface Claimant {
  /** Random, of one claim. */
  readonly owner: string;
  /** "" while a run that starts anew has not begun. */
  readonly runId: string;
  /** Random, of the output directory, and the number of its claim: of two with one directory the higher one has it. */
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
  readonly isReleased: boolean;
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
  #claim: StoreClaim | undefined;

  constructor(config: ResolvedConfig, outputEpoch: number) {
    this.#config = config;
    this.#outputEpoch = outputEpoch;
  }

  /**
   * Claims the prefix for this process, or gives the claim its run.
   *
   * @param runId "" where the run is still to begin
   * @param note gets a line for a person where nothing keeps others away
   * @throws E_CHECKPOINT_STORE_IN_USE, E_JOB_TAKEN; E_CHECKPOINT_STORE where the store refuses to be written
   */
  async claim(runId: string, note: (text: string) => void): Promise<void> {
    const store = await storeOf(this.#config);
    if (store === undefined) return;
    if (this.#claim !== undefined) return this.#claim.belongsTo(runId);
    const { output_dir: directory, overwrite_output_dir: isReplaced } = this.#config;
    const claimant: Claimant = {
      ...{ owner: randomUUID(), runId, output: await idOf(directory) },
      ...{ outputEpoch: this.#outputEpoch, fence: jobFence() ?? null },
      ...{ host: hostname(), pid: process.pid, since: new Date().toISOString() },
    };
    // Whoever has lost the output directory claims nothing.
    assertWritable(directory);
    this.#claim = await StoreClaim.take(store, claimant, { directory, isReplaced, note });
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

  private constructor(
    store: ObjectStore,
    isConditional: boolean,
    { record, tag }: { readonly record: ClaimRecord; readonly tag: string },
  ) {
    this.#store = store;
    this.isConditional = isConditional;
    this.#record = record;
    this.#tag = tag;
  }

  static async take(
    store: ObjectStore,
    claimant: Claimant,
    {
      note,
      ...how
    }: {
      readonly directory: string;
      readonly isReplaced: boolean;
      readonly note: (text: string) => void;
    },
  ): Promise<StoreClaim> {
    const isConditional = await store.hasConditions(`lockstep-probe-${claimant.owner}`);
    if (!isConditional) {
      note(
        `warning: ${store.url()} does not support conditional writes (If-None-Match, If-Match): two runs that begin there at the same time are not kept apart. Give each run a checkpoint_store of its own`,
      );
    }
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const found = await store.getTagged(storeClaimKey, maxClaimBytes);
      const before = found && parseClaim(found.bytes);
      if (found !== undefined && before?.owner === claimant.owner) {
        const claim = new StoreClaim(store, isConditional, { record: before, tag: found.tag });
        held.set(store.url(), claim);
        return claim;
      }
      if (found !== undefined) refuseOthers(store, before, claimant, how);
      const record = { ...claimant, epoch: (before?.epoch ?? 0) + 1, isReleased: false };
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
    if (this.#record.runId === runId) return;
    await this.assertHeld();
    await this.#rewrite({ ...this.#record, runId });
    await this.assertHeld();
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
      this.#lost = new LockstepError("E_CHECKPOINT_STORE_LOST", {
        ...{ place: this.#store.url(), by: describe(record) },
      });
      throw this.#lost;
    }
  }

  async release(): Promise<void> {
    held.delete(this.#store.url());
    if (this.#lost !== undefined) return;
    // Where that fails, a run of the same output directory, job or id finds it all the same.
    await this.#rewrite({ ...this.#record, isReleased: true }).catch(() => {});
  }

  async #rewrite(record: ClaimRecord): Promise<void> {
    await this.#store.putIf(
      ...([storeClaimKey, textOf(record), this.isConditional ? this.#tag : "any"] as const),
    );
  }
}

/** @throws E_CHECKPOINT_STORE_IN_USE, E_JOB_TAKEN, E_OUTPUT_DIR_LOST */
function refuseOthers(
  store: ObjectStore,
  before: ClaimRecord | undefined,
  { runId, output, outputEpoch, fence }: Claimant,
  { directory, isReplaced }: { readonly directory: string; readonly isReplaced: boolean },
): void {
  const by = describe(before);
  if (before !== undefined) {
    if (fence !== null && before.fence?.job === fence.job) {
      if (before.fence.epoch <= fence.epoch) return;
      throw new LockstepError("E_JOB_TAKEN", { job: fence.job, directory: store.url() });
    }
    if (before.output === output) {
      if (before.outputEpoch <= outputEpoch) return;
      throw new LockstepError("E_OUTPUT_DIR_LOST", { directory, by });
    }
    if (before.isReleased || (runId !== "" && before.runId === runId)) return;
  }
  if (isReplaced) return;
  const of = before === undefined || before.runId === "" ? "" : ` ${before.runId}`;
  throw new LockstepError("E_CHECKPOINT_STORE_IN_USE", {
    ...{ place: store.url(), run: `another run${of}`, by, claim: store.url(storeClaimKey) },
  });
}

const textOf = (record: ClaimRecord): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify({ format, ...record }, null, 2)}\n`);

/** @returns undefined for what is no claim */
function parseClaim(bytes: Uint8Array): ClaimRecord | undefined {
  try {
    const parsed: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (!isRecord(parsed) || parsed["format"] !== format) return undefined;
    const { owner, runId, output, host, since, epoch, outputEpoch, pid, isReleased, fence } =
      parsed;
    const isClaim =
      [owner, runId, output, host, since].every((value) => typeof value === "string") &&
      [epoch, outputEpoch, pid].every((value) => Number.isSafeInteger(value)) &&
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
