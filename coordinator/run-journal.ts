import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { isRecord } from "#lib/checkpoint/file-reader";
import { JournalFile, type JournalRecord, readJournal } from "#lib/checkpoint/journal-file";
import { isWriteFailure } from "#lib/checkpoint/repeated-save";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorStates } from "#lib/core/shard-arrays";
import {
  type AgreedStep,
  agreedStepOf,
  type RecoveredRun,
  type RunState,
  runStateOf,
} from "./run-state.js";

const format = "lockstep-run-journal-1";
/** A journal of more than this, and of four times its first record, is written anew. */
const rewriteBytes = 4 * 1024 * 1024;

/** Whose journal it is. */
export interface JournalOwner {
  readonly runId: string;
  readonly epoch: number;
  /** Directory of the checkpoint that it went on from; absent: it began anew. */
  readonly begunFrom?: string | undefined;
}

/** Lists of a state that only grow: records hold what came to them. */
const lists = {
  log: (state: RunState) => state.checkpoint.logHistory,
  accountSamples: (state: RunState) => state.checkpoint.account?.samples ?? [],
  evaluations: (state: RunState) => state.evaluations,
  samples: (state: RunState) => state.samples,
} as const;
type ListName = keyof typeof lists;
const listNames = Object.keys(lists) as ListName[];

/**
 * What a run has come to, on the disk before anything relies on it: its state between two steps, and in a step what
 * workers agreed on. Where it cannot be written the run goes on without, and says so: after a death it would go on
 * from its last checkpoint.
 */
export class RunJournal {
  readonly #path: string;
  readonly #owner: JournalOwner;
  readonly #onBegun: () => void;
  readonly #note: (text: string) => void;
  #file: JournalFile | undefined;
  #firstBytes = 0;
  #lengths: Record<ListName, number> = { log: 0, accountSamples: 0, evaluations: 0, samples: 0 };
  #isTold = false;
  /** Writes that have begun: of a run that has ended there may be one. */
  #last: Promise<void> = Promise.resolve();

  /**
   * @param options.note gets a line where the journal cannot be written, and where it can again
   * @param options.onBegun called when it is there, and journals of before are needed no more
   */
  constructor(
    path: string,
    owner: JournalOwner,
    { note, onBegun = () => {} }: { note: (text: string) => void; onBegun?: () => void },
  ) {
    this.#path = path;
    this.#owner = owner;
    this.#note = note;
    this.#onBegun = onBegun;
  }

  /**
   * The run is at this state.
   *
   * @param options.isNew whether what was written before is left out from now on
   * @param options.agreed what a coordinator that died left agreed on, which is then still so
   */
  async state(
    state: RunState,
    tensorStates: TensorStates,
    { isNew = false, agreed }: { readonly isNew?: boolean; readonly agreed?: AgreedStep } = {},
  ): Promise<void> {
    await this.#write(async () => {
      const file = this.#file;
      const isLarge =
        file !== undefined && file.numBytes > Math.max(rewriteBytes, 4 * this.#firstBytes);
      if (file === undefined || isNew || isLarge) {
        const told = { ...this.#told(state, true), ...(agreed === undefined ? {} : { agreed }) };
        const first = { kind: "first", format, ...this.#owner, ...told };
        await this.#begin({ value: first, arrays: tensorStates });
        return;
      }
      const value = { kind: "state", ...this.#told(state, false) };
      await file.append({ value, arrays: tensorStates });
    });
    for (const name of listNames) this.#lengths[name] = lists[name](state).length;
  }

  /** Workers agreed on a step: shards may use it from now on. */
  async agreed(agreed: AgreedStep): Promise<void> {
    await this.#append({ kind: "agreed", agreed });
  }

  /** What was agreed on is computed again: shards are about to forget it. */
  async reopened(): Promise<void> {
    await this.#append({ kind: "reopened" });
  }

  async close(): Promise<void> {
    await this.#last.catch(() => {});
    await this.#closeFile();
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  #told(state: RunState, isWhole: boolean): Readonly<Record<string, unknown>> {
    const added = Object.fromEntries(
      listNames.map((name) => [name, lists[name](state).slice(isWhole ? 0 : this.#lengths[name])]),
    );
    const { account } = state.checkpoint;
    const checkpoint = {
      ...state.checkpoint,
      logHistory: [],
      ...(account === undefined ? {} : { account: { ...account, samples: [] } }),
    };
    return { state: { ...state, checkpoint, evaluations: [], samples: [] }, added };
  }

  async #begin(first: JournalRecord): Promise<void> {
    await this.#closeFile();
    this.#file = await JournalFile.create(this.#path, first);
    this.#firstBytes = this.#file.numBytes;
    this.#onBegun();
  }

  async #append(value: Readonly<Record<string, unknown>>): Promise<void> {
    // Without a state before it a step means nothing.
    await this.#write(async () => this.#file?.append({ value, arrays: {} }));
  }

  /** @throws E_OUTPUT_DIR_LOST, E_LEASE_LOST */
  async #write(action: () => Promise<void>): Promise<void> {
    this.#last = this.#last.catch(() => {}).then(() => this.#writeNow(action));
    await this.#last;
  }

  async #writeNow(action: () => Promise<void>): Promise<void> {
    try {
      await action();
      if (!this.#isTold || this.#file === undefined) return;
      this.#isTold = false;
      this.#note("the journal is written again");
    } catch (error) {
      const explained = explainWriteError(error, this.#path);
      // Whoever may not write here has the run no more.
      if (!isWriteFailure(explained)) throw explained;
      await this.#closeFile().catch(() => {});
      if (this.#isTold) return;
      this.#isTold = true;
      const text = `warning: the journal is not written: ${explained.message} Training goes on; if its coordinator dies, the run goes on from the last checkpoint`;
      this.#note(text);
    }
  }
}

/**
 * What a journal says of its run.
 *
 * @returns undefined where nothing whole is in it
 * @throws E_JOURNAL_DAMAGED, E_JSON_FILE, and what reading a file ends with
 */
export async function readRunJournal(
  file: string,
): Promise<(JournalOwner & RecoveredRun) | undefined> {
  const { records } = await readJournal(file);
  const [first] = records;
  if (first === undefined) return undefined;
  const { value } = first;
  if (!isRecord(value) || value["kind"] !== "first" || value["format"] !== format) {
    throw new LockstepError("E_JSON_FILE", { file, problem: `it is not of format ${format}` });
  }
  const { runId, epoch, begunFrom } = value;
  const isPlace = begunFrom === undefined || typeof begunFrom === "string";
  if (typeof runId !== "string" || !Number.isSafeInteger(epoch) || !isPlace) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "it does not say whose it is" });
  }
  let agreed: unknown;
  let latest = first;
  const grown: Record<ListName, unknown[]> = {
    ...{ log: [], accountSamples: [], evaluations: [], samples: [] },
  };
  for (const record of records) {
    const told = isRecord(record.value) ? record.value : {};
    // The first record may have one of before, a state that follows a step has none.
    agreed = told["agreed"];
    if (told["kind"] !== "first" && told["kind"] !== "state") continue;
    latest = record;
    const added = isRecord(told["added"]) ? told["added"] : {};
    for (const name of listNames) {
      const items = added[name];
      if (Array.isArray(items)) for (const item of items as unknown[]) grown[name].push(item);
    }
  }
  const told = isRecord(latest.value) ? latest.value["state"] : undefined;
  const state = runStateOf(withLists(told, grown), file);
  return {
    ...{ runId, epoch: Number(epoch), begunFrom, state, tensorStates: latest.arrays },
    ...(agreed === undefined ? {} : { agreed: agreedStepOf(agreed, file) }),
  };
}

function withLists(state: unknown, grown: Readonly<Record<ListName, unknown[]>>): unknown {
  if (!isRecord(state)) return state;
  const { checkpoint } = state;
  if (!isRecord(checkpoint)) return state;
  const { account } = checkpoint;
  return {
    ...state,
    checkpoint: {
      ...checkpoint,
      logHistory: grown.log,
      ...(isRecord(account) ? { account: { ...account, samples: grown.accountSamples } } : {}),
    },
    evaluations: grown.evaluations,
    samples: grown.samples,
  };
}
