import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { hostPort } from "#lib/core/address";
import type { LockstepEvent } from "#lib/core/events";
import { endOf, type Life, problemsBetween, problemsOfLife } from "./account.js";
import { type Actor, Director, type TimedFault } from "./director.js";
import { SmallDisk } from "./disk.js";
import { type ChaosInputs, fakeEngine, totalSteps as stepsOfSchedule, writeJob } from "./job.js";
import { eventIn, type Exit, leftOver, type Program, startLockstep } from "./program.js";
import { Reducers } from "./reducers.js";
import { Liar } from "./liar.js";
import { hasWrongSums, kindOf, type Schedule } from "./schedule.js";
import { addressesOf, controlPort, Wires } from "./wires.js";

/** Without an event for so long, a run hangs: far beyond every timeout of the configuration. */
const maxSilenceMs = 200_000;
/** Lives of a coordinator; every fault ends one at most. */
const maxLives = 12;
/** In the second half of a run groups take so much longer while members have not told all their lies. */
const slowerWhileLying = 10;
/** For workers whose run is over. */
const farewellMs = 5_000;
const diskBytes = { small: 24 << 20, large: 128 << 20 };

export interface StageOptions {
  readonly schedule: Schedule;
  readonly inputs: ChaosInputs;
  readonly isReal: boolean;
  /** Of runs at a time in this process. */
  readonly slot: number;
  /** @default that of every schedule */
  readonly totalSteps?: number;
  readonly settings?: Readonly<Record<string, unknown>>;
  /** What each group takes longer than it takes. */
  readonly paceMs?: number;
  /** Gets what the processes say, and what happens to them. */
  readonly log?: (text: string) => void;
  /** Something that a test does beside the schedule. */
  readonly onEvent?: (event: LockstepEvent, stage: Stage) => void;
}

/** What came of a run. */
export interface Outcome {
  readonly problems: readonly string[];
  /** What happened, by kind. */
  readonly faults: readonly string[];
  /** Errors of the catalogue with which the coordinator or a worker ended by itself. */
  readonly ends: readonly string[];
  readonly lives: readonly Life[];
  readonly seconds: number;
}

/** One run in real processes, with all that happens to it. Nothing of it is left afterwards. */
export class Stage {
  readonly #options: StageOptions;
  readonly #directory: string;
  readonly #director: Director;
  readonly #wires: Wires;
  readonly #host = addressesOf;
  readonly #problems: string[] = [];
  readonly #faults: string[] = [];
  readonly #ends: string[] = [];
  readonly #lives: Life[] = [];
  readonly #workers: (Program | undefined)[] = [];
  readonly #all: Program[] = [];
  readonly #workerEnds: Promise<void>[] = [];
  readonly #liars: Liar[] = [];
  #numLying = 0;
  readonly #reducers: Reducers | undefined;
  #coordinator: Program | undefined;
  #disk: SmallDisk | undefined;
  /** Resolves when the disk has room again. */
  #diskFree: Promise<void> = Promise.resolve();
  #killed = new Set<number>();
  #stopped = new Set<number>();
  #isOver = false;
  #lastStep = 0;
  readonly #startedAt = performance.now();
  #lastEventMs = performance.now();

  private constructor(options: StageOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    const { schedule, slot } = options;
    this.#reducers = Reducers.of(schedule, this.#host(slot).coordinator, {
      start: (args, name) => this.#start(args, (line) => this.#log(`${name}: ${line}`)),
      onBadEnd: (problem) => this.#problems.push(problem),
    });
    const timed = schedule.faults.filter((fault): fault is TimedFault => "when" in fault);
    this.#director = new Director(
      timed,
      async (fault, at) => this.#happen(fault, at),
      () => this.#paceMs,
    );
    this.#wires = new Wires(schedule, this.#host(slot), {
      onBytes: (numBytes) => this.#director.bytesPassed(numBytes),
      onAct: (act) => this.#faults.push(kindOf({ kind: "message", is: act })),
    });
  }

  /** Carries out a schedule. @param look sees the output directory of a run that is over */
  static async run(
    options: StageOptions,
    look: (outputDir: string) => Promise<readonly string[]>,
  ): Promise<Outcome> {
    const directory = await mkdtemp(join(tmpdir(), "lockstep-stage-"));
    const stage = new Stage(options, directory);
    try {
      return await stage.#run(look);
    } finally {
      await stage.#close();
    }
  }

  get outputDir(): string {
    return join(this.#directory, "out");
  }

  get coordinator(): Program | undefined {
    return this.#coordinator;
  }

  get numWorkers(): number {
    return this.#options.schedule.numWorkers;
  }

  /** Kills a worker, by its number; one that stands in for it is started. */
  killWorker(who: number): void {
    const worker = this.#workers[who % this.numWorkers];
    if (worker === undefined || worker.isOver()) return;
    this.#faults.push("kill-worker");
    this.#kill(worker.pid);
  }

  async #run(look: (outputDir: string) => Promise<readonly string[]>): Promise<Outcome> {
    const { schedule, inputs, isReal, slot } = this.#options;
    const { isLarge, numWorkers, numShards, faults } = schedule;
    const { coordinator, public: advertiseHost } = this.#host(slot);
    await mkdir(this.outputDir);
    if (faults.some(({ kind }) => kind === "disk-full")) {
      this.#disk = await SmallDisk.mount(this.outputDir, diskBytes[isLarge ? "large" : "small"]);
    }
    await writeJob(this.#configFile, {
      ...{ inputs, isReal, isLarge, numWorkers, numShards, advertiseHost },
      totalSteps: this.#totalSteps,
      listen: hostPort(coordinator, controlPort),
      outputDir: this.outputDir,
      settings: {
        // Without it, who computes wrongly is believed.
        ...(faults.some(hasWrongSums) ? { verify_groups: 1 } : {}),
        ...this.#reducers?.settings,
        ...this.#options.settings,
      },
    });
    await this.#director.open(join(this.#directory, "director"));
    await this.#wires.open();
    this.#reducers?.startAll();
    const silence = this.#watchSilence();
    for (let who = 0; who < numWorkers; who++) this.#startWorker(who);
    const lying = this.#letLie();
    while (this.#problems.length === 0 && !(await this.#live())) {
      if (this.#lives.length < maxLives) continue;
      this.#problems.push(`the run did not end in ${maxLives} lives of its coordinator`);
    }
    this.#isOver = true;
    for (const liar of this.#liars) liar.close();
    await Promise.all([...lying, this.#dismissWorkers(), this.#reducers?.stop()]);
    clearInterval(silence);
    this.#problems.push(...(await leftOver(this.#directory)));
    if (this.#problems.length === 0) this.#problems.push(...(await look(this.outputDir)));
    return {
      problems: this.#problems,
      faults: this.#faults,
      ends: this.#ends,
      lives: this.#lives,
      seconds: (performance.now() - this.#startedAt) / 1000,
    };
  }

  /** @returns the lives of the members that lie */
  #letLie(): readonly Promise<void>[] {
    const { schedule, slot } = this.#options;
    return schedule.faults.flatMap((fault) => {
      if (fault.kind !== "liar") return [];
      const liar = new Liar({
        isReal: this.#options.isReal,
        address: hostPort(this.#host(slot).public, controlPort),
        lie: fault.lie,
        onLie: () => this.#faults.push(kindOf(fault)),
      });
      this.#liars.push(liar);
      this.#numLying += 1;
      return [liar.run().finally(() => (this.#numLying -= 1))];
    });
  }

  /** One life of the coordinator. @returns whether the run is finished */
  async #live(): Promise<boolean> {
    await this.#diskFree;
    const events: LockstepEvent[] = [];
    const program = this.#start(["coordinator", this.#configFile, "--json-logs"], (line) => {
      const event = eventIn(line);
      if (event !== undefined) this.#event(event, events);
    });
    this.#coordinator = program;
    const exit = await program.exited;
    const wasKilled = this.#killed.has(program.pid);
    const wasStopped = this.#stopped.has(program.pid);
    this.#log(`coordinator ended with ${exit.code ?? exit.signal} ${exit.stderr}`);
    const life: Life = { events, exit, wasKilled };
    const before = this.#lives.at(-1);
    this.#lives.push(life);
    this.#problems.push(...problemsOfLife(life));
    if (before !== undefined) this.#problems.push(...problemsBetween(before, life));
    if (exit.code === 0) return true;
    if (!wasKilled && !wasStopped) this.#endedByItself("coordinator", exit);
    return false;
  }

  #event(event: LockstepEvent, events: LockstepEvent[]): void {
    if (event.type === "worker.telemetry" || event.type === "rpc.handled") return;
    events.push(event);
    this.#log(`coordinator: ${JSON.stringify(event)}`);
    this.#lastEventMs = performance.now();
    if (event.type === "step.completed") {
      this.#lastStep = event.step;
      if (event.step === 1) this.#director.firstStep();
    }
    this.#options.onEvent?.(event, this);
  }

  #startWorker(who: number): void {
    const { schedule, isReal, slot } = this.#options;
    const program = this.#start(
      [
        ...["worker", "--coordinator", hostPort(this.#host(slot).public, controlPort)],
        ...["--name", `worker-${who}`, "--use-cpu", "--metrics-port", "null"],
        ...["--reconnect-timeout-ms", "120000"],
        ...(isReal ? [] : ["--engine-module", fakeEngine]),
      ],
      (line) => this.#log(`worker-${who}: ${line}`),
    );
    this.#workers[who % schedule.numWorkers] = program;
    this.#workerEnds.push(this.#followWorker(who, program));
  }

  /** Starts another in the place of one that ended before the run did. */
  async #followWorker(who: number, program: Program): Promise<void> {
    const exit = await program.exited;
    const { code, signal: killedBy } = exit;
    this.#log(`worker-${who} ended with ${code ?? killedBy} ${exit.stderr}`);
    this.#lastEventMs = performance.now();
    const wasKilled = this.#killed.has(program.pid);
    const wasStopped = this.#stopped.has(program.pid);
    if (!wasKilled && !wasStopped && code !== 0) this.#endedByItself(`worker-${who}`, exit);
    if (code === 0 && this.#lastStep < this.#totalSteps) {
      this.#problems.push(`worker-${who} ended with 0 after step ${this.#lastStep}`);
    }
    // Whoever was told that the run is over is not needed, though its coordinator may still have to save.
    const isNeeded = code !== 0 || this.#lastStep < this.#totalSteps;
    if (isNeeded && !this.#isOver && this.#problems.length === 0) this.#startWorker(who);
  }

  /** Workers leave with their run; one that was never told, as one that came too late, is asked to. */
  async #dismissWorkers(): Promise<void> {
    const all = Promise.all(this.#workerEnds);
    await Promise.race([all, delay(farewellMs)]);
    for (const worker of this.#workers) {
      if (worker === undefined || worker.isOver()) continue;
      this.#log(`worker ${worker.pid} is asked to leave`);
      this.#stopped.add(worker.pid);
      worker.child.kill("SIGTERM");
    }
    await all;
  }

  #endedByItself(name: string, exit: Exit): void {
    const end = endOf(name, exit);
    if ("problem" in end) this.#problems.push(end.problem);
    else this.#ends.push(end.end);
  }

  async #happen(fault: TimedFault, at: Actor | undefined): Promise<void> {
    if (this.#isOver) return;
    this.#log(`fault: ${JSON.stringify(fault)} at ${JSON.stringify(at)}`);
    this.#faults.push(kindOf(fault));
    const worker = (who: number): number | undefined =>
      at?.role === "worker" ? at.pid : this.#workers[who % this.numWorkers]?.pid;
    switch (fault.kind) {
      case "kill-worker":
        return this.#kill(worker(fault.who));
      case "stop-worker":
        return this.#pause(worker(fault.who), fault.forMs);
      case "kill-reducer":
        return this.#reducers?.kill(fault.who, at?.role === "reducer" ? at.pid : undefined);
      case "kill-coordinator":
        return this.#kill(this.#coordinator?.pid);
      case "stop-coordinator":
        return this.#pause(this.#coordinator?.pid, fault.forMs);
      case "term-coordinator":
        if (this.#coordinator === undefined || this.#coordinator.isOver()) return;
        // A second signal is for whoever cannot wait until everything is saved.
        if (this.#stopped.has(this.#coordinator.pid)) this.#killed.add(this.#coordinator.pid);
        this.#stopped.add(this.#coordinator.pid);
        this.#coordinator.child.kill("SIGTERM");
        return;
      case "cut":
        return this.#wires.proxy(fault.port).cut();
      case "black-hole":
        return this.#wires.proxy(fault.port).goDark(fault.forMs);
      case "ports-away":
        return this.#wires.proxy(fault.port).goAway(fault.forMs);
      case "delay":
        return this.#wires.proxy(fault.port).delay(fault.byMs, fault.forMs);
      case "clock": {
        const pid = fault.who === "coordinator" ? this.#coordinator?.pid : worker(fault.who);
        return this.#director.moveClock(pid ?? 0, fault.byMs);
      }
      case "disk-full":
        await this.#disk?.fill();
        this.#diskFree = delay(fault.forMs).then(() => this.#disk?.free());
    }
  }

  #kill(pid: number | undefined): void {
    if (pid === undefined) return;
    this.#killed.add(pid);
    signal(pid, "SIGKILL");
  }

  #pause(pid: number | undefined, forMs: number): void {
    if (pid === undefined) return;
    signal(pid, "SIGSTOP");
    setTimeout(() => signal(pid, "SIGCONT"), forMs);
  }

  /** A hang becomes a problem, and an end. */
  #watchSilence(): NodeJS.Timeout {
    return setInterval(() => {
      if (performance.now() - this.#lastEventMs < maxSilenceMs) return;
      const alive = this.#all.filter((program) => !program.isOver());
      this.#problems.push(
        `nothing happened for ${maxSilenceMs / 1000} s; alive: ${alive.map(({ child }) => child.spawnargs.slice(3, 5).join(" ")).join(", ")}; last event ${JSON.stringify(this.#lives.at(-1)?.events.at(-1))}`,
      );
      this.#isOver = true;
      for (const { pid } of alive) this.#kill(pid);
    }, 1_000);
  }

  #log(text: string): void {
    const { log } = this.#options;
    log?.(`${((performance.now() - this.#startedAt) / 1000).toFixed(3)} ${text}`);
  }

  #start(args: readonly string[], onLine: (line: string) => void): Program {
    const program = startLockstep(args, {
      directorSocket: join(this.#directory, "director"),
      cacheDirectory: join(this.#directory, "cache"),
      onLine,
    });
    this.#all.push(program);
    return program;
  }

  async #close(): Promise<void> {
    this.#isOver = true;
    for (const liar of this.#liars) liar.close();
    for (const program of this.#all) if (!program.isOver()) this.#kill(program.pid);
    await Promise.all(this.#all.map(({ exited }) => exited));
    this.#director.close();
    this.#wires.close();
    await this.#diskFree;
    await this.#disk?.unmount();
    await rm(this.#directory, { recursive: true, force: true });
  }

  get #paceMs(): number {
    const { paceMs = 0 } = this.#options;
    const isLate = this.#lastStep * 2 >= this.#totalSteps;
    return isLate && this.#numLying > 0 ? paceMs * slowerWhileLying : paceMs;
  }

  get #totalSteps(): number {
    return this.#options.totalSteps ?? stepsOfSchedule;
  }

  get #configFile(): string {
    return join(this.#directory, "job.yaml");
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}
