import { awakeMs } from "#lib/core/awake-clock";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { formatBytes } from "#lib/core/format";
import { storeUrl } from "#lib/store/location";
import type { SavedFile } from "#lib/core/saved-files";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { wireRangeBytes } from "#lib/core/wire-space";
import type { ChosenOptimizer } from "#lib/optim/index";
import { frozenVersion, type PullRequest, type PushReply } from "#lib/wire/bulk-protocol";
import type { BulkHandlers, PullSource, PushMeta } from "#lib/wire/bulk-server";
import type { Frame } from "#lib/wire/frame";
import { isSameSecret, type MemberPass } from "#lib/wire/member";
import type {
  OpenShard,
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStats,
  ShardStatus,
} from "#lib/wire/reducer-messages";
import type { WireSecurity } from "#lib/wire/security";
import type { ReducerHandlers } from "#lib/wire/reducer-server";
import type { RunLife } from "#coordinator/reducer/fence";
import { ShardService } from "#coordinator/reducer/shard-service";
import { rangeOf } from "#coordinator/shards";
import { NoticeQueue } from "./notice-queue.js";
import { PeerRange } from "./peer-range.js";
import { saveShardState, saveShardTensors } from "./save-files.js";
import { loadShardFiles } from "./shard-files.js";

interface ReducerProcessOptions {
  /** Of calls to reducers of the same range. */
  readonly security: WireSecurity;
  /** A line for a person. */
  readonly log: (text: string) => void;
  /** The run is over. */
  readonly onFinished: () => void;
  /** Whatever a coordinator may hear. */
  readonly onNotice: (notice: ShardNotice) => void;
  readonly onTransferred: (direction: keyof ShardStats, payloadBytes: number) => void;
}

/** The shard that a process has, and whose. */
interface HeldShard {
  readonly service: ShardService;
  readonly request: OpenShard;
  readonly layout: ParameterLayout;
  /** Of the run's coordinators. */
  readonly secret: string;
  life: RunLife;
  /** Of the weights that stay as they are. */
  readonly frozen: { readonly layout: ParameterLayout; readonly wireBytes: Uint8Array } | undefined;
}

/** A call of them that is made again, by the same coordinator or by the next one, would meet the first one's bytes. */
const fillingCalls: ReadonlySet<ShardCommand["kind"]> = new Set([
  ...(["startOver", "loadFiles", "takeState", "takeSum"] as const),
]);

/** A process that has one shard of one run, from the first `open` until the run is over; it outlives coordinators. */
export class ReducerProcess implements ReducerHandlers, BulkHandlers {
  readonly #options: ReducerProcessOptions;
  #held: HeldShard | undefined;
  /** One call after the other opens. */
  #opening: Promise<unknown> = Promise.resolve();
  /** What fills arrays ends before other things begin, also where nobody waits for it any more. */
  #filling: Promise<unknown> = Promise.resolve();
  /** So does what reads them into a file. */
  #saving: Promise<unknown> = Promise.resolve();
  #watcher: NoticeQueue | undefined;
  #lastCallMs = awakeMs();

  constructor(options: ReducerProcessOptions) {
    this.#options = options;
  }

  /** Where the shard is; undefined while there is none. */
  get status(): ShardStatus | undefined {
    return this.#held?.service.reducer.status;
  }

  /** Since the shard's coordinator was heard of; 0 while one listens, and before the first. */
  get silentMs(): number {
    const isAwaited = this.#held !== undefined && this.#watcher === undefined;
    return isAwaited ? awakeMs() - this.#lastCallMs : 0;
  }

  /** Tells the coordinator, where one listens. */
  notify(notice: ShardNotice): void {
    this.#options.onNotice(notice);
    this.#watcher?.add(notice);
  }

  async open(request: OpenShard, pass: MemberPass): Promise<ShardStatus> {
    const opened = this.#opening.then(() => this.#open(request, pass));
    this.#opening = opened.catch(() => {});
    return named(opened, request.shardIndex);
  }

  async call(command: ShardCommand, pass: MemberPass): Promise<ShardAnswer> {
    return named(this.#call(command, pass), this.#held?.request.shardIndex ?? 0);
  }

  async #call(command: ShardCommand, pass: MemberPass): Promise<ShardAnswer> {
    const carryOut = async (): Promise<ShardAnswer> =>
      this.#carryOut(command, this.#current(command.kind, pass), pass);
    const isSave = command.kind === "saveState" || command.kind === "saveTensors";
    const before = fillingCalls.has(command.kind)
      ? this.#filling
      : isSave
        ? this.#saving
        : undefined;
    if (before === undefined) return carryOut();
    this.#current(command.kind, pass);
    const done = before.then(carryOut);
    if (isSave) this.#saving = done.catch(() => {});
    else this.#filling = done.catch(() => {});
    return done;
  }

  async #carryOut(command: ShardCommand, held: HeldShard, pass: MemberPass): Promise<ShardAnswer> {
    const { service, layout, frozen } = held;
    switch (command.kind) {
      case "loadFiles": {
        this.#requireUnloaded(held, "load files");
        const range = rangeOf({ ...held.request, layout });
        const arrays = service.reducer.arithmetic;
        const places = {
          ...{ layout, range, arrays },
          frozen: frozen && {
            ...frozen,
            range: rangeOf({ ...held.request, layout: frozen.layout }),
          },
        };
        return { kind: "loaded", files: await loadShardFiles(command.files, places) };
      }
      case "fill":
        this.#requireUnloaded(held, "fill an array");
        bytesOf(held, command.array, command.offset, command.values.length).set(command.values);
        return { kind: "done" };
      case "saveState":
      case "saveTensors": {
        const saved = await this.#save(command, held, pass);
        const { place } = command;
        const name = "file" in place ? place.file : storeUrl(place.store, place.key);
        this.#options.log(`wrote ${name} (${formatBytes(saved.sizeBytes)})`);
        return { kind: "saved", ...saved };
      }
      case "read":
        return {
          kind: "values",
          values: bytesOf(held, command.array, command.offset, command.numBytes),
        };
      case "finish": {
        const { numApplied, numAppliesRepeated } = service.reducer.status;
        this.#options.log(
          `run ${held.life.runId} is over: ${numApplied} updates made since the shard was loaded, ${numAppliesRepeated} asked for again`,
        );
        // Once the answer is on its way.
        setImmediate(this.#options.onFinished);
        return { kind: "done" };
      }
      default:
        return service.handle(command);
    }
  }

  async #save(
    command: Extract<ShardCommand, { readonly place: unknown }>,
    { service, request, layout }: HeldShard,
    pass: MemberPass,
  ): Promise<SavedFile> {
    const { masters, states } = service.reducer.arithmetic;
    const piece = { range: rangeOf({ ...request, layout }), masters, states };
    const assertCurrent = (): void => void this.#current(command.kind, pass);
    const saved = { place: command.place, assertCurrent };
    if (command.kind === "saveState") return saveShardState(saved, piece);
    const { version = 0 } = service.reducer.status;
    const peers = command.peers.map(({ shardIndex, peer }) => {
      if (shardIndex >= request.numShards) {
        const reason = `names shard ${shardIndex} of ${request.numShards}`;
        throw new LockstepError("E_MESSAGE_INVALID", {
          ...{ message: "SaveTensors", field: "peers", reason },
        });
      }
      return new PeerRange({
        ...{ peer, version, security: this.#options.security, shardIndex: request.shardIndex },
        range: rangeOf({ ...request, layout, shardIndex }),
      });
    });
    try {
      return await saveShardTensors(saved, command.content, { layout, piece, peers });
    } finally {
      for (const peer of peers) peer.close();
    }
  }

  watch(pass: MemberPass, signal: AbortSignal): AsyncIterable<ShardNotice> {
    const { service } = this.#current("watch", pass);
    this.#watcher?.end();
    const watcher = new NoticeQueue(service.present, signal);
    this.#watcher = watcher;
    signal.addEventListener("abort", () => {
      if (this.#watcher === watcher) this.#watcher = undefined;
      this.#lastCallMs = awakeMs();
    });
    return watcher;
  }

  async pushGradients(meta: PushMeta, frames: AsyncIterable<Frame>): Promise<PushReply> {
    return this.#shardOf(meta.pass).pushGradients(meta, frames);
  }

  pullParameters(request: PullRequest, pass: MemberPass): PullSource {
    return this.#shardOf(pass).pullParameters(request, pass);
  }

  async #open(request: OpenShard, pass: MemberPass): Promise<ShardStatus> {
    const life: RunLife = { runId: pass.runId, epoch: pass.epoch };
    const held = this.#held;
    if (held !== undefined) {
      this.#requireSuccessor(held, pass);
      const isSame = JSON.stringify(held.request) === JSON.stringify(request);
      if (isSame && held.life.runId === life.runId) {
        held.service.open(life);
        if (life.epoch !== held.life.epoch) this.#tell("has taken over", request, life);
        held.life = life;
        return held.service.reducer.status;
      }
      // The same run cut otherwise, or the next one of its output directory.
      held.service.close();
      this.#held = undefined;
    }
    this.#held = await this.#create(request, pass, life);
    this.#tell("has opened", request, life);
    return this.#held.service.reducer.status;
  }

  async #create(request: OpenShard, pass: MemberPass, life: RunLife): Promise<HeldShard> {
    const layout = parse<ParameterLayout>(request.layoutJson, "layoutJson");
    const optimizer = parse<ChosenOptimizer>(request.optimizerJson, "optimizerJson");
    const { shardIndex, numShards, gradientGroups, frozenJson } = request;
    const { onTransferred, security } = this.#options;
    const service = await ShardService.create({
      ...{ shardIndex, numShards, layout, optimizer, gradientGroups, life, security },
      notify: (notice) => this.notify(notice),
      onTransferred,
    });
    let frozen: HeldShard["frozen"];
    if (frozenJson !== "") {
      const ofFrozen = parse<ParameterLayout>(frozenJson, "frozenJson");
      const range = rangeOf({ shardIndex, numShards, layout: ofFrozen });
      const wireBytes = new Uint8Array(wireRangeBytes(ofFrozen, range));
      frozen = { layout: ofFrozen, wireBytes };
      service.frozen.add(frozenVersion, wireBytes);
    }
    return { service, request, layout, secret: pass.secret, life, frozen };
  }

  /** @throws E_STALE_COORDINATOR for a coordinator of another run, and one before the present one */
  #requireSuccessor({ life, secret }: HeldShard, pass: MemberPass): void {
    const isSameRun = pass.runId === life.runId;
    const isLater = isSameRun ? pass.epoch >= life.epoch : pass.epoch > life.epoch;
    if (isSameSecret(secret, pass.secret) && isLater) return;
    throw new LockstepError("E_STALE_COORDINATOR", {
      expected: `run ${life.runId}, epoch ${life.epoch}`,
      got: `run ${pass.runId}, epoch ${pass.epoch}`,
    });
  }

  /** The shard, for its coordinator. @throws E_SHARD_NOT_OPEN, E_STALE_COORDINATOR */
  #current(call: string, pass: MemberPass): HeldShard {
    const held = this.#held;
    if (held === undefined) throw new LockstepError("E_SHARD_NOT_OPEN", { call });
    this.#requireSuccessor(held, pass);
    const { life } = held;
    if (pass.runId !== life.runId || pass.epoch !== life.epoch) {
      throw new LockstepError("E_SHARD_NOT_OPEN", { call });
    }
    this.#lastCallMs = awakeMs();
    return held;
  }

  /** The shard, for a worker. @throws E_STALE_RUN */
  #shardOf(pass: MemberPass): ShardService {
    if (this.#held !== undefined) return this.#held.service;
    throw new LockstepError("E_STALE_RUN", {
      ...{ worker: pass.workerId, expected: "no run" },
      got: `run ${pass.runId}, epoch ${pass.epoch}`,
    });
  }

  /** @throws E_SHARD_STATE */
  #requireUnloaded({ service, request }: HeldShard, call: string): void {
    if (!service.reducer.status.isLoaded) return;
    throw new LockstepError("E_SHARD_STATE", {
      ...{ shardIndex: request.shardIndex, call },
      ...{ expected: "nothing published", got: "weights that workers pull" },
    });
  }

  #tell(what: string, { shardIndex, numShards }: OpenShard, { runId, epoch }: RunLife): void {
    this.#options.log(
      `a coordinator of run ${runId}, epoch ${epoch}, ${what}: shard ${shardIndex + 1} of ${numShards}`,
    );
  }
}

/** What fails for no reason of the catalogue would look like a connection that broke, and be asked for again. */
async function named<T>(answer: Promise<T>, shardIndex: number): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (isLockstepError(error)) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new LockstepError("E_SHARD_FAILED", { shardIndex, reason }, { cause: error });
  }
}

/** @throws E_MESSAGE_INVALID */
function parse<T>(json: string, field: string): T {
  try {
    return JSON.parse(json) as T;
  } catch (cause) {
    const message = { message: "OpenShard", field, reason: "is not JSON" };
    throw new LockstepError("E_MESSAGE_INVALID", message, { cause });
  }
}

/** A view of some bytes of one of the shard's arrays. @throws E_MESSAGE_INVALID for others than it has */
function bytesOf(
  { service, frozen }: HeldShard,
  array: string,
  offset: number,
  numBytes: number,
): Uint8Array {
  const { masters, states } = service.reducer.arithmetic;
  const found =
    array === "masters" ? masters : array === "frozen" ? frozen?.wireBytes : states[array];
  const reason =
    found === undefined
      ? `names ${array}, which the shard does not keep`
      : offset + numBytes > found.byteLength
        ? `names bytes up to ${offset + numBytes} of ${array}, which has ${found.byteLength}`
        : undefined;
  if (found === undefined || reason !== undefined) {
    throw new LockstepError("E_MESSAGE_INVALID", {
      ...{ message: "ShardCommand", field: "array", reason: reason ?? "" },
    });
  }
  return new Uint8Array(found.buffer, found.byteOffset + offset, numBytes);
}
