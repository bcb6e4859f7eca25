import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { Coordinator } from "#coordinator/coordinator";
import { PauseGate } from "#coordinator/pause-gate";
import { DeviceKinds } from "#coordinator/device-kinds";
import { FrontDoor } from "#coordinator/front-door";
import type { CoordinatorHttp } from "#coordinator/http";
import { outputRecordFile } from "#lib/checkpoint/index";
import type { ResolvedConfig } from "#lib/config/index";
import { hostPort, splitAddress } from "#lib/core/address";
import { awakeMs } from "#lib/core/awake-clock";
import { isReplaced } from "#lib/core/errors/replaced";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { assertSendAllowed } from "#lib/wire/security";
import { checkConfig } from "./check-arguments.js";
import { coordinatorOptions, wireSecurity } from "./coordinator-options.js";
import { EventPublishing } from "./event-publishing.js";
import { endFinished } from "./farewell.js";
import { finishRun, savedSoFar } from "./finish.js";
import { type LeadClaim, leaderLease } from "./leader-lease.js";
import { checkMessages } from "./message-limits.js";
import { incarnationsOf, isStartedHere, tellProgress } from "./own-workers.js";
import { prepareRun } from "./prepare.js";
import type { PreparedRun } from "./prepared-run.js";
import { pushOf, type PushResult } from "./push.js";
import { compareDevices, type ResumePoint } from "./resume.js";
import { choosePrecision } from "./chosen-precision.js";
import { forgetPause, keepPause } from "./kept-pause.js";
import { type LeftRun, removeJournals } from "./left-run.js";
import { openJournal, recoveryOf, tellWhereItGoesOn } from "./recovered-run.js";
import type { RunJournal } from "#coordinator/run-journal";
import { epochOf, type TrainingLife, trainWithRollbacks } from "./rollbacks.js";
import { serveRunHttp } from "./run-http.js";
import { controlPort } from "./taken-port.js";
import { reducerOptions } from "./reducer-options.js";
import type { OwnProcesses, OwnWorkers } from "./own-processes.js";
import { RunReducers } from "./reducers.js";
import {
  type Run,
  type RunContext,
  type RunOptions,
  type RunResult,
  startRun,
} from "./run-handle.js";
import {
  type BegunRun,
  beginRun,
  findStart,
  mayBeFinished,
  type RunStart,
  type StartedRun,
} from "./start.js";
import { stoppedAt, StoppedBeforeTraining } from "./stopped-run.js";
import { findOwnStart } from "./while-away.js";
import { addressHere, checkAdvertisedName, howToJoin } from "./worker-addresses.js";
import { type TrainerLog, writeTrainerLog } from "./trainer-log.js";

export interface ClusterRun extends Run {
  /** Whether the job is open for workers, so that a stop has something to save. */
  readonly isOpen: () => boolean;
  /**
   * Saves a checkpoint after the step in progress, and the run goes on.
   * @returns false where that was asked for already, or nothing is trained yet
   */
  readonly requestSave: () => boolean;
  /** Ends the run's worker processes at once; for a process that is about to exit. */
  readonly killWorkers: () => void;
}

/**
 * Runs a configuration on a coordinator in this process; workers join from elsewhere. A checkpoint is saved
 * where the run is stopped.
 */
export const startCoordinator = (config: ResolvedConfig, options: RunOptions = {}): ClusterRun =>
  openCluster(config, options);

/** @param own what starts the run's own processes; absent: there are none */
export function openCluster(
  config: ResolvedConfig,
  options: RunOptions,
  own?: OwnProcesses,
): ClusterRun {
  const cluster = new Cluster(config, own);
  return {
    ...startRun(
      options,
      (context) => cluster.run(context),
      () => cluster.close(),
    ),
    isOpen: () => cluster.isOpen,
    requestSave: () => cluster.coordinator?.requestSave() ?? false,
    killWorkers: () => cluster.killProcesses(),
  };
}

/** From a checkpoint, or the run's beginning, on. */
interface LifeParts extends TrainingLife {
  readonly resume: ResumePoint | undefined;
  readonly door: FrontDoor;
  readonly bus: InProcessEventBus;
}

/** From a configuration to a saved model; every phase can be watched over HTTP. */
class Cluster {
  readonly #config: ResolvedConfig;
  readonly #own: OwnProcesses | undefined;
  coordinator: Coordinator | undefined;
  workers: OwnWorkers | undefined;
  isOpen = false;
  #isReady = false;
  #http: CoordinatorHttp | undefined;
  #events: EventPublishing | undefined;
  readonly #pause = new PauseGate();
  #door: FrontDoor | undefined;
  #start: RunStart | undefined;
  #prepared: PreparedRun | undefined;
  #begun: BegunRun | undefined;
  #push: PushResult | undefined;
  #trainerLog: TrainerLog | undefined;
  #output: LeadClaim | undefined;
  #journal: RunJournal | undefined;
  /** Of a coordinator that died, until its shards have been asked. */
  #left: LeftRun | undefined;
  readonly #reducers: RunReducers;
  /** What the run goes on from, once it is known. */
  #reached: ResumePoint | undefined;
  /** What ended the run before it was open: workers may die while data is prepared. */
  #failure: { readonly error: unknown } | undefined;

  constructor(config: ResolvedConfig, own: OwnProcesses | undefined) {
    this.#config = config;
    this.#own = own;
    this.#reducers = new RunReducers(config, own?.startReducers);
  }

  async run(context: RunContext): Promise<RunResult> {
    const { stop } = context;
    checkConfig(this.#config);
    const onStop = (): void => {
      this.workers?.stopRestarting();
      if (this.isOpen) this.coordinator?.requestStop();
      else this.#fail(new StoppedBeforeTraining());
    };
    stop.addEventListener("abort", onStop);
    if (stop.aborted) onStop();
    try {
      return await this.#run(context);
    } catch (error) {
      // What is written or read then fails with it, for other reasons.
      if (isReplaced(this.#failure?.error)) throw this.#failure?.error;
      if (!(error instanceof StoppedBeforeTraining)) throw error;
      return stoppedAt(this.#reached);
    } finally {
      stop.removeEventListener("abort", onStop);
    }
  }

  async #run({ bus, stop, requestStop }: RunContext): Promise<RunResult> {
    const note = (text: string): void => bus.publish({ type: "note", text });
    const commanded = () => ({ cluster: this, pause: this.#pause, requestStop, note });
    this.#events = await EventPublishing.open(this.#config, bus, commanded);
    this.#http = await serveRunHttp(this.#config, bus, {
      isReady: () => this.#isReady,
      eventFigures: () => this.#events?.figures,
      ...{ own: this.#own, signal: stop },
    });
    this.#refuseStopped();
    const door = await this.#listen(bus, stop);
    if (this.#start !== undefined && mayBeFinished(this.#start)) {
      const { finished, run } = await this.#begin(door, bus);
      if (finished !== undefined) {
        const knockedAt = this.#own === undefined ? door : undefined;
        return await endFinished(finished, { config: run.config, door: knockedAt, note });
      }
    }
    this.#refuseStopped();
    if (this.#own !== undefined) {
      // Before the job is known: its precision may be for their device to decide.
      const controlAddress = addressHere(this.#config, door.port);
      this.workers = await this.#own.startWorkers(this.#config, {
        ...{ controlAddress, note },
        prepared: () => this.#prepared,
        onExit: ({ pid, reason }) =>
          this.coordinator?.reportWorkerExit(incarnationsOf(pid), reason),
        onExhausted: (error) => this.#fail(error),
      });
      tellProgress(bus, this.workers);
    } else note(howToJoin(this.#config, door.port));
    const { run } = await this.#begin(door, bus);
    this.#refuseStopped();
    const result = await this.#trainToEnd(run, { door, bus, stop });
    await this.workers?.stop();
    await this.#reducers.stop();
    return result;
  }

  async close(): Promise<void> {
    this.killProcesses();
    await this.#events?.close();
    await this.#http?.close();
    await this.#journal?.close();
    if (this.coordinator === undefined) {
      await this.#partFromWorkers();
      await this.#door?.close(0);
    }
    this.#trainerLog?.close();
    await this.#prepared?.close();
    await this.#start?.resume?.optimizer.close();
    await this.#output?.release();
  }

  killProcesses(): void {
    this.workers?.killAll();
    this.#reducers.killAll();
  }

  /** Those of other machines that knocked while the job was prepared, where that was stopped. */
  async #partFromWorkers(): Promise<void> {
    const isStopped = this.#failure?.error instanceof StoppedBeforeTraining;
    if (!isStopped || this.#own !== undefined) return;
    this.#door?.turnAway({ kind: "stopped", runId: this.#start?.resume?.record.runId ?? "" });
    await this.#door?.untilAllLeft();
  }

  /** Ends the run with this error, wherever it is. */
  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#door?.kinds.giveUp(error);
    this.coordinator?.fail(error);
  }

  #refuseStopped(): void {
    const error = this.#failure?.error;
    if (error instanceof StoppedBeforeTraining) throw error;
  }

  /** Takes the output directory and listens for workers, which wait until the job is known. */
  async #listen(bus: InProcessEventBus, stop: AbortSignal): Promise<FrontDoor> {
    const config = this.#config;
    await checkAdvertisedName(config, { signal: stop });
    this.#refuseStopped();
    // A finished run has been pushed, and needs no hub to say so.
    if (!existsSync(join(config.output_dir, outputRecordFile))) this.#push = await pushOf(config);
    this.#output = await this.#claimOutput(bus, stop);
    const note = (text: string): void => bus.publish({ type: "note", text });
    this.#start = await findOwnStart(config, { own: this.#own, output: this.#output, stop, note });
    this.#refuseStopped();
    this.#reached = this.#start.resume;
    if (!mayBeFinished(this.#start)) this.#push ??= await pushOf(config);
    const { host } = splitAddress(config.listen);
    const port = await controlPort(config, this.#own, this.#start, { note, signal: stop });
    if (this.#failure !== undefined) throw this.#failure.error;
    const security = await wireSecurity(config, (line) => note(`warning: ${line}`));
    // Workers would refuse to send it.
    assertSendAllowed(hostPort(config.advertise_host ?? host, port), security);
    const door = await FrontDoor.open({
      ...{ bus, security, listenHost: host, listenPort: port },
      kinds: new DeviceKinds({
        ...{ plannedWorkers: config.workers, deterministic: config.deterministic },
        fixedKind:
          this.#start.left?.state.deviceKind ?? this.#start.resume?.record.deviceKind ?? undefined,
        isOwn: this.#own && isStartedHere,
        ...{ forsakenAfterMs: config.lease_timeout_ms, now: awakeMs },
      }),
    });
    this.#door = door;
    this.#own?.listensAt?.({ control: door.port });
    // From now on workers are answered; one of them may have to come before the job is known.
    this.#isReady = true;
    return door;
  }

  async #claimOutput(bus: InProcessEventBus, signal: AbortSignal): Promise<LeadClaim> {
    try {
      return await leaderLease(this.#config).lead({
        onLost: (error) => this.#fail(error),
        onWaiting: (text) => bus.publish({ type: "note", text }),
        signal,
      });
    } catch (error) {
      this.#refuseStopped();
      throw error;
    }
  }

  /** Prepares the run and compares it with what is in its output directory; once. */
  async #begin(door: FrontDoor, bus: InProcessEventBus): Promise<BegunRun> {
    if (this.#begun !== undefined) return this.#begun;
    const detail = (text: string): void =>
      bus.publish({ type: "phase.changed", phase: "preparing", detail: text });
    this.#start ??= await findStart(this.#config);
    const start = this.#start;
    this.#prepared = await prepareRun(start.config, {
      onDetail: detail,
      choosePrecision: () => choosePrecision(start, door.kinds, detail),
    });
    checkMessages(this.#prepared);
    detail("comparing the data and the model with what is in output_dir");
    this.#begun = await beginRun(this.#prepared, start, async (runId) =>
      this.#output?.store.claim(runId),
    );
    if (this.#begun.finished === undefined) this.#push ??= await pushOf(this.#config);
    return this.#begun;
  }

  /** Trains to the end; where a shard is lost with what it kept, from what was saved again. */
  async #trainToEnd(
    run: StartedRun,
    { door, bus, stop }: Pick<LifeParts, "door"> & Pick<RunContext, "bus" | "stop">,
  ): Promise<RunResult> {
    this.#events?.begin(run, this.#output?.epoch ?? 1);
    bus.publish(run.started);
    await keepPause(this.#pause, run, (text) => bus.publish({ type: "note", text }));
    this.#left = this.#start?.left;
    const epoch = this.#output?.epoch;
    this.#journal =
      epoch === undefined ? undefined : openJournal(run, epoch, { bus, own: this.#own });
    const result = await trainWithRollbacks({
      ...{ run, bus, stop, begunFrom: this.#start?.resume },
      train: (resume, life) => this.#train(run, { ...life, resume, door, bus }),
      onLeft: () => {
        this.isOpen = false;
        this.coordinator = undefined;
        this.#trainerLog?.close();
      },
      onBack: (resume) => {
        this.#reached = resume;
        if (stop.aborted) this.#fail(new StoppedBeforeTraining());
        // Somebody stopped it, another process has the run, or no worker is left for it.
        if (this.#failure !== undefined) throw this.#failure.error;
      },
    });
    // Nobody has to go on where the shards are: the result or a checkpoint has it all.
    await this.#journal?.close();
    if (this.#journal !== undefined) removeJournals(run.config.output_dir);
    await forgetPause(run.config.output_dir);
    return result;
  }

  async #train(run: StartedRun, parts: LifeParts): Promise<RunResult> {
    const { resume, door, bus, numRollbacks, beginsAgainAfter, parted } = parts;
    const left = this.#left;
    this.#left = undefined;
    const recovery = left && this.#start && recoveryOf(this.#start, run, bus);
    const addresses = await this.#reducers.addresses(bus);
    const coordinator = new Coordinator({
      ...(await coordinatorOptions(run, resume, bus, () => this.coordinator?.deviceKind)),
      ...(addresses && (await reducerOptions(run, resume, { addresses, bus, recovery }))),
      pause: this.#pause,
      ...(this.#output && { epoch: epochOf(this.#output.epoch, numRollbacks) }),
      ...{ door, beginsAgainAfter },
      ...(recovery === undefined ? {} : { recovery }),
      ...(this.#journal === undefined ? {} : { journal: this.#journal }),
    });
    this.coordinator = coordinator;
    const { isRecovered, apart } = await coordinator.start();
    // A stop from now on is one of a run that is there.
    this.isOpen = true;
    const recovered = isRecovered ? recovery : undefined;
    const history = (recovered?.state.checkpoint ?? resume?.state)?.logHistory ?? [];
    const from = isRecovered ? run.config.output_dir : resume && dirname(resume.directory);
    try {
      this.#trainerLog = await writeTrainerLog(run.config.output_dir, bus, history, from);
      tellWhereItGoesOn({ run, bus, left, resume, apart, recovered });
    } catch (error) {
      // What it opened is closed where it ends.
      coordinator.fail(error);
    }
    // Of while the job was not open yet.
    if (this.#failure !== undefined) coordinator.fail(this.#failure.error);
    if (resume !== undefined) {
      void door.kinds.device().then(
        ({ deviceKind }) =>
          compareDevices(resume, deviceKind, {
            // All workers are of this machine: if one cannot take part, none can.
            fail: (error) => this.#own !== undefined && coordinator.fail(error),
            isRefused: run.config.deterministic,
            bus,
          }),
        () => {},
      );
    }
    const ended = await coordinator.run();
    const { state } = ended;
    parted(state.step);
    const resumed = resume && { step: resume.state.step, directory: resume.directory };
    let isSaved = false;
    try {
      const result = await finishRun(run, ended, {
        bus,
        push: this.#push,
        directory: await savedSoFar(run, state.step, resumed),
      });
      isSaved = true;
      return result;
    } finally {
      await ended.releaseShards(isSaved);
    }
  }
}
