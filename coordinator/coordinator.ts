import { randomBytes, randomInt, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { keptMastersSha256 } from "#lib/core/masters-hash";
import { hostPort, isWildcard, loopbackOf, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { isReplaced } from "#lib/core/errors/replaced";
import type { TensorStates } from "#lib/core/shard-arrays";
import { blockElements } from "#lib/core/parameter-layout";
import { readWireSpace } from "#lib/core/wire-space";
import type { WireSecurity } from "#lib/wire/security";
import { Court } from "./court.js";
import { ControlService } from "./control-service.js";
import { DeviceKinds } from "./device-kinds.js";
import { FrontDoor, reasonOf } from "./front-door.js";
import {
  defaultHeartbeatIntervalMs,
  defaultHeartbeatTimeoutMs,
  defaultLeaseTimeoutMs,
  farewellTimeoutMs,
} from "./limits.js";
import { Membership } from "./membership.js";
import type { CoordinatorOptions, RunOutcome } from "./options.js";
import type { PaceNews } from "./paces.js";
import { apartFrom } from "./recovery.js";
import type { RecoveredRun } from "./run-state.js";
import { Refusals } from "./refusals.js";
import { Replacement } from "./replacement.js";
import { Quarantine } from "./quarantine.js";
import { startShardThread } from "./reducer/client.js";
import { refusalsOf } from "./refused-connections.js";
import type { RunLife } from "./reducer/fence.js";
import { ShardGroup, type ShardSource } from "./shards.js";
import { TaskQueue } from "./task-queue.js";
import { TrainingRun } from "./training-run.js";
import { VerifiedShare } from "./verified-share.js";

/** What a coordinator that listens consists of. */
interface Parts {
  readonly life: RunLife;
  readonly door: FrontDoor;
  readonly shards: ShardGroup;
  readonly control: ControlService;
  readonly run: TrainingRun;
  /** Whether it goes on in the place of one that died. */
  readonly isRecovered: boolean;
}

/**
 * One fine-tuning job: owns the data order, the reduction order and the optimizer, so that the
 * result does not depend on who computed or which worker died. Loads no TensorFlow.
 */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #security: WireSecurity;
  readonly #kinds: DeviceKinds;
  readonly #membership: Membership;
  readonly #quarantine = new Quarantine(() => performance.now());
  readonly #queue: TaskQueue;
  readonly #replacement = new Replacement();
  #parts: Parts | undefined;
  #ticker: NodeJS.Timeout | undefined;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    this.#security = options.security ?? {};
    const { bus, door, plannedWorkers, kindWaitMs: waitMs } = options;
    this.#kinds =
      door?.kinds ?? new DeviceKinds({ plannedWorkers, deterministic: true, waitMs, now: awakeMs });
    const tellPace = (news: PaceNews): void => bus.publish({ type: "worker.pace", ...news });
    this.#queue = new TaskQueue(awakeMs, tellPace, this.#kinds.deterministic);
    this.#membership = new Membership({
      heartbeatTimeoutMs: options.heartbeatTimeoutMs ?? defaultHeartbeatTimeoutMs,
      kinds: this.#kinds,
      now: awakeMs,
    });
  }

  /**
   * Listens for workers, starts the shards or finds them, loads the masters into them unless they are where the run
   * is, and lets the workers in.
   *
   * @throws E_INSECURE_BIND, E_PORT_IN_USE, and what `loadMasters` throws
   */
  async start(): Promise<{
    readonly controlAddress: string;
    readonly controlPort: number;
    /** Whether the run goes on where its shards are. */
    readonly isRecovered: boolean;
    /** Why it does not, though there was a coordinator before. */
    readonly apart?: string;
  }> {
    const { job, bus, numShards, gradientGroups, resume, recovery } = this.#options;
    const { updates, loadMasters, loadFrozen } = this.#options;
    const listenHost = this.#options.listenHost ?? "127.0.0.1";
    const listenPort = this.#options.listenPort ?? 0;
    const advertiseHost = this.#options.advertiseHost ?? loopbackOf(listenHost);
    const shardHost = this.#options.advertiseHost ?? (isWildcard(listenHost) ? "" : listenHost);
    const { heartbeatIntervalMs = defaultHeartbeatIntervalMs } = this.#options;
    const { leaseTimeoutMs = defaultLeaseTimeoutMs } = this.#options;
    const jobId = job.jobId ?? randomUUID();
    const life: RunLife = {
      runId: this.#options.runId ?? jobId,
      epoch: this.#options.epoch ?? randomInt(1, 2 ** 31),
    };
    bus.publish({ type: "phase.changed", phase: "preparing", detail: "loading the weights" });
    const door =
      this.#options.door ??
      (await FrontDoor.open({
        ...{ bus, security: this.#security, listenHost, listenPort },
        kinds: this.#kinds,
      }));
    let shards: ShardGroup | undefined;
    try {
      const frozen =
        job.frozen === undefined || loadFrozen === undefined
          ? undefined
          : { layout: job.frozen, load: loadFrozen };
      let frozenSpace: Promise<Uint8Array> | undefined;
      shards = await ShardGroup.start(this.#options.startShard ?? startShardThread, {
        numShards: Math.min(numShards, job.layout.numElements / blockElements),
        layout: job.layout,
        optimizer: updates.optimizer,
        listenHost,
        // Fixed ports next to a fixed control port, so that firewalls can name them.
        firstPort: listenPort === 0 ? 0 : listenPort + 1,
        gradientGroups,
        security: this.#security,
        life,
        signal: this.#replacement.signal,
        ...(frozen === undefined
          ? {}
          : {
              frozen: {
                layout: frozen.layout,
                wireBytes: () => (frozenSpace ??= readWireSpace(frozen.layout, frozen.load)),
              },
            }),
      });
      const group = shards;
      // They may be gone with the run, and nothing waits for what they would answer.
      this.#replacement.whenTold(() => void group.close());
      const apart = recovery && apartFrom(recovery, await shards.status(), this.#options);
      const recovered = apart === undefined ? recovery : undefined;
      if (recovered === undefined) {
        const source: ShardSource = {
          fill: async ({ range, masters, states }) => {
            await loadMasters(range, masters);
            await resume?.loadStates(range, states);
          },
          files: this.#options.files ?? {},
          ...(frozen === undefined ? {} : { frozen }),
        };
        await shards.load(source, resume?.state.numUpdates ?? 0);
      }
      const { verifyGroups = 0, verifySeed = randomBytes(16).toString("hex") } = this.#options;
      const court = new Court({
        bus,
        verified: new VerifiedShare(verifyGroups, verifySeed),
        present: () =>
          this.#membership.takingPart(leaseTimeoutMs, (workerId) =>
            this.#queue.isWaiting(workerId),
          ),
        brought: (workerId) => this.#parts?.control.brought(workerId),
        worked: (workerId) => this.#membership.worked(workerId),
        ban: (workerId, reason) => this.#parts?.control.ban(workerId, reason),
        brokePromise: (workerId, reason) => this.#parts?.control.brokePromise(workerId, reason),
      });
      const run = new TrainingRun({
        ...{ options: begunFrom(this.#options, recovered), queue: this.#queue, shards, court },
        deviceKind: () => this.#kinds.kind,
        onFailure: (error) => this.#replacement.tell(error),
      });
      if (recovered === undefined) await resume?.loadTensorStates?.(run.tensorStates);
      else copyTensorStates(recovered.tensorStates, run.tensorStates);
      shards.onRpc((method, code, seconds) =>
        bus.publish({ type: "rpc.handled", method, code, seconds }),
      );
      const refused = refusalsOf(bus, "shard");
      for (let shard = 0; shard < shards.count; shard++) {
        bus.publish({ type: "pushes.waiting", shard, numPushes: 0 });
      }
      shards.onLimit((shard, notice) => {
        if (notice.type === "connectionsRefused") refused(notice.reason, notice.numConnections);
        else bus.publish({ type: "pushes.waiting", shard, numPushes: notice.numPushes });
      });
      const refusals = new Refusals(bus, () => performance.now());
      shards.onRefused((refused) => refusals.add(refused));
      shards.onFailure((shard, error) => {
        const reason = error instanceof Error ? error.message : String(error);
        bus.publish({ type: "shard.lost", shard, reason });
        run.fail(error);
      });
      const addresses = (): readonly string[] =>
        group.addresses((address) => rehost(address, shardHost));
      const control = new ControlService({
        life,
        membership: this.#membership,
        strays: door.strays,
        quarantine: this.#quarantine,
        queue: this.#queue,
        shards,
        bus,
        jobJson: JSON.stringify({ ...job, jobId }),
        precision: job.precision,
        shardAddresses: addresses,
        heartbeatIntervalMs,
        plannedWorkers: this.#options.plannedWorkers,
        maxWorkers: this.#options.maxWorkers,
        leaseTimeoutMs,
        endRun: (error) => run.fail(error),
        version: run.version,
        onMembersChanged: () => run.membersChanged(this.#membership.size),
      });
      shards.onMoved((shard) => {
        control.letJoinAgain(`shard ${shard} is at ${addresses()[shard] ?? ""} now`);
      });
      this.#kinds.watch({
        switched: (kind) => control.removeOtherKinds(kind),
        forsaken: (error) => run.fail(error),
      });
      const isRecovered = recovered !== undefined;
      this.#parts = { life, door, shards, control, run, isRecovered };
      this.#ticker = setInterval(() => {
        control.removeSilentWorkers();
        this.#queue.expireLeases();
        run.membersChanged(this.#membership.size);
      }, heartbeatIntervalMs / 2);
      bus.publish({ type: "phase.changed", phase: "waiting-for-workers" });
      door.attach(control);
      return {
        controlAddress: hostPort(advertiseHost, door.port),
        controlPort: door.port,
        isRecovered,
        ...(apart === undefined ? {} : { apart }),
      };
    } catch (error) {
      const isKept = this.#options.beginsAgainAfter?.(error) === true;
      clearInterval(this.#ticker);
      await Promise.allSettled([isKept ? undefined : door.close(0), shards?.close()]);
      this.#replacement.signal.throwIfAborted();
      throw error;
    }
  }

  /**
   * Trains to the end, or until `requestStop`; then everything is closed, but for shards in other processes, from which
   * the result is read: the outcome closes these.
   */
  async run(): Promise<RunOutcome> {
    const parts = this.#parts;
    if (parts === undefined) throw new Error("Coordinator.start() has not been called");
    const startedAt = performance.now();
    let interrupted = true;
    let outcome: RunOutcome;
    try {
      const result = await parts.run.run();
      const snapshot = await this.#replacement.or(parts.shards.finalState());
      interrupted = !result.isWhole;
      const digest = keptMastersSha256(this.#options.job.layout, snapshot);
      outcome = {
        ...result,
        snapshot,
        mastersSha256: await this.#replacement.or(digest),
        seconds: (performance.now() - startedAt) / 1000,
        releaseShards: async (isSaved) => parts.shards.close(isSaved && result.isWhole),
      };
    } catch (error) {
      if (isReplaced(error)) await this.#cutOff(parts);
      else if (this.#options.beginsAgainAfter?.(error) === true) await this.#leaveDoor(parts);
      else await this.#close(parts, interrupted);
      throw error;
    }
    await this.#close(parts, interrupted, parts.shards.areElsewhere);
    return outcome;
  }

  /** Of the devices that the run computes on; undefined while that is open. */
  get deviceKind(): string | undefined {
    return this.#kinds.kind;
  }

  /** Finishes the step in progress, saves a checkpoint, and ends the run, with what comes after it left to do. */
  requestStop(): void {
    this.#parts?.run.requestStop();
  }

  /**
   * Saves a checkpoint after the step in progress, and the run goes on.
   * @returns false where that was asked for already
   */
  requestSave(): boolean {
    const isNew = this.#parts?.run.requestSave() ?? false;
    this.#options.pause?.wake();
    return isNew;
  }

  /** Ends the run with this error, wherever it is; what `run` opened is closed. */
  fail(error: unknown): void {
    this.#replacement.tell(error);
    this.#parts?.run.fail(error);
  }

  /**
   * A supervisor of local workers knows of an exit before any timeout does.
   * @param incarnations what those of the process begin with: other machines have processes of its id
   */
  reportWorkerExit(incarnations: string, reason: string): void {
    this.#parts?.door.strays.ended(incarnations);
    for (const { workerId, incarnation } of this.#membership.members()) {
      if (incarnation.startsWith(incarnations)) this.#parts?.control.removeWorker(workerId, reason);
    }
  }

  /** Workers join whoever comes to the door next. */
  async #leaveDoor({ door, control, shards }: Parts): Promise<void> {
    door.detach();
    const reason = "the shards begin anew, and it joins them again";
    for (const { workerId } of this.#membership.members()) {
      control.removeWorker(workerId, reason, "worker.left");
    }
    clearInterval(this.#ticker);
    await shards.close();
  }

  /** Another coordinator has the run: workers and shards hear nothing from this one any more. */
  async #cutOff({ door, shards }: Parts): Promise<void> {
    clearInterval(this.#ticker);
    await Promise.allSettled([door.close(0), shards.close()]);
  }

  /** @param keepsShards whoever has the outcome reads the result from them */
  async #close(
    { life, door, control, shards, isRecovered }: Parts,
    interrupted: boolean,
    keepsShards = false,
  ): Promise<void> {
    const { runId } = life;
    const { directory = "" } = this.#options;
    const told = new Set<string>();
    const onTold = (worker: string): void => void told.add(worker);
    const { heartbeatIntervalMs = defaultHeartbeatIntervalMs } = this.#options;
    const goodbye = interrupted
      ? ({ kind: "stopped", runId, onTold } as const)
      : ({ kind: "finished", runId, directory, onTold } as const);
    door.turnAway(goodbye);
    const reason = reasonOf(goodbye);
    this.#queue.finish({ reason, interrupted });
    await door.untilAllLeft(() => this.#membership.members(), heartbeatIntervalMs);
    for (const { workerId } of this.#membership.members()) {
      if (door.hasTold(workerId)) control.removeWorker(workerId, reason, "worker.left");
    }
    // Those of a coordinator that died may not have come back yet, where nothing was left to compute.
    const { plannedWorkers, mayTakeOver = false } = this.#options;
    const mayCome = isRecovered || mayTakeOver;
    const isSome = (): boolean => told.size + this.#membership.numJoined < plannedWorkers;
    const until = awakeMs() + farewellTimeoutMs.ofAnother;
    while (mayCome && isSome() && awakeMs() < until) await delay(20);
    clearInterval(this.#ticker);
    await Promise.allSettled([door.close(), keepsShards ? undefined : shards.close()]);
  }
}

/** The options of a run that begins where a coordinator that died had come to; else they stay. */
function begunFrom(
  asked: CoordinatorOptions,
  recovered: RecoveredRun | undefined,
): CoordinatorOptions {
  const options = { ...asked };
  delete options.recovery;
  if (recovered === undefined) return options;
  // Its shards hold the weights, and what the optimizer keeps.
  const resume = { state: recovered.state.checkpoint, loadStates: async () => {} };
  return { ...options, recovery: recovered, resume };
}

/** @throws E_RESUME_MISMATCH where others were kept */
function copyTensorStates(from: TensorStates, into: TensorStates): void {
  const isSame =
    Object.keys(from).length === Object.keys(into).length &&
    Object.entries(into).every(([name, values]) => from[name]?.length === values.length);
  if (!isSame) {
    const differences = "its optimizer keeps other sums of tensors";
    throw new LockstepError("E_RESUME_MISMATCH", { directory: "the journal", differences });
  }
  for (const [name, values] of Object.entries(into)) values.set(from[name] as Float32Array);
}

/** @param host "" where workers call the shards as they called the coordinator */
const rehost = (address: string, host: string): string =>
  hostPort(host, splitAddress(address).port);
