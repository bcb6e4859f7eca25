import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "#lib/core/paths";
import { RandomStream } from "#lib/core/random";
import type { Job } from "#lib/queue/job";
import type { JobQueue } from "#lib/queue/job-queue";
import { descendantsOf } from "./processes.js";
import { type KeptStep, keptSteps } from "./kept-steps.js";

interface StormOptions {
  readonly seed: number;
  readonly numJobs: number;
  readonly numAgents: number;
  /** What agents are given to find the queue: a directory or addresses. */
  readonly place: string;
  readonly queue: JobQueue;
  /** Empty. */
  readonly directory: string;
  /** Jobs that train, the first ones of all, and what the undisturbed run comes to. */
  readonly training?: TrainingJobs | undefined;
  /** Kills a server and starts it again; absent: there is none. */
  readonly killServer?: (index: number) => Promise<void>;
}

export interface TrainingJobs {
  readonly numJobs: number;
  readonly config: string;
  /** Of the weights in the result. */
  readonly sha256: string;
}

export interface StormOutcome {
  /** How often each thing was done to a process. */
  readonly faults: Readonly<Record<string, number>>;
  /** Jobs that are not done, or not exactly once: a line each. */
  readonly problems: readonly string[];
  /** Of all jobs: how often one was given to an agent. */
  readonly numTaken: number;
  readonly said: readonly string[];
}

/** As an agent's. */
const trainingFlags = ["--resume_from_checkpoint=auto", "--user_signal=save", "--json-logs"];
const stepsOf = (index: number): number => 6 + (index % 7);
const agentProgram = join(packageRoot, "dist/tests/support/queue-agent.js");
/** Longer than a lease and a job, so that an agent that has one gets this one too meanwhile. */
const stoppedMs = 5_000;
/** Between two faults, at most. */
const pauseMs = 900;
/** A run that trains takes seconds to begin. */
const trainingPauseMs = 3_000;
/**
 * After so many faults or so long, or once there are fewer jobs than agents, nothing is done to anybody any more, and
 * what is left has to end. Each job's share: a machine on which an agent takes seconds to begin has fewer a minute.
 */
const faultsPerJob = 5;
const stormMsPerJob = 7_500;
const longestStormMs = 120_000;
const endMsPerJob = 25_000;
const latestEndMs = 600_000;

/** Jobs in a queue whose agents, runs and servers are killed and stopped by a seed, until all jobs are over. */
export async function queueStorm(options: StormOptions): Promise<StormOutcome> {
  const { seed, numJobs, numAgents, queue, directory } = options;
  const random = new RandomStream(seed, "test", 0);
  const below = (limit: number): number => random.nextBelow(limit);
  const faults: Record<string, number> = {};
  const said: string[] = [];
  const agents: (ChildProcess | undefined)[] = [];
  const stopped = new Set<ChildProcess>();
  const isAtWork = (agent: ChildProcess | undefined): boolean =>
    agent?.pid !== undefined && !stopped.has(agent) && descendantsOf(agent.pid).length > 0;
  const start = (index: number): void => {
    const name = `agent${index}`;
    const output = join(directory, "work", name);
    const child = spawn(process.execPath, [agentProgram, options.place, name, output], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => said.push(...chunk.toString().trimEnd().split("\n")));
    }
    child.once("exit", () => {
      if (agents[index] === child) agents[index] = undefined;
    });
    agents[index] = child;
  };
  await mkdir(join(directory, "out"));
  const submitted: Job[] = [];
  const submit = async (index: number): Promise<void> => {
    const outputDir = join(directory, "out", String(index));
    // Every fifth one comes after the two before it.
    const after = index % 5 === 4 ? submitted.slice(-2).map(({ id }) => id) : [];
    const isTraining = index < (options.training?.numJobs ?? 0);
    const config = isTraining
      ? (options.training?.config ?? "")
      : JSON.stringify({ steps: stepsOf(index), output_dir: outputDir });
    const flags = isTraining ? [...trainingFlags, `--output_dir=${outputDir}`] : [];
    submitted.push(
      await queue.submit({
        ...{ name: `job${index}`, config, flags, directory, outputDir, after },
        ...{ priority: index % 3, maxTries: 100 },
      }),
    );
  };
  for (let index = 0; index < numAgents; index++) start(index);
  const submitting = (async () => {
    for (let index = 0; index < numJobs; index++) await submit(index);
  })();
  const done = (what: string): void => {
    faults[what] = (faults[what] ?? 0) + 1;
  };
  const beginMs = performance.now();
  const stormMs = Math.min(stormMsPerJob * numJobs, longestStormMs);
  const endMs = Math.min(endMsPerJob * numJobs, latestEndMs);
  const isStorm = (): boolean =>
    numLeft >= numAgents &&
    performance.now() - beginMs < stormMs &&
    Object.values(faults).reduce((sum, count) => sum + count, 0) < faultsPerJob * numJobs;
  let [isOver, numLeft] = [false, numJobs];
  let server: Promise<void> = Promise.resolve();
  try {
    while (!isOver && performance.now() - beginMs < endMs) {
      await delay(below(options.training === undefined ? pauseMs : trainingPauseMs));
      for (let index = 0; index < numAgents; index++) if (agents[index] === undefined) start(index);
      const what = isStorm() ? below(6) : -1;
      const first = below(numAgents);
      const others = agents.map((_, i) => agents[(first + i) % numAgents]);
      // What is done to a run is done where there is one.
      const agent = what === 3 || what === 4 ? others.find(isAtWork) : others[0];
      if (agent?.pid === undefined || stopped.has(agent)) continue;
      if (what === 0) {
        agent.kill("SIGKILL");
        done("agent killed");
      } else if (what === 1) {
        agent.kill("SIGTERM");
        done("agent drained");
      } else if (what === 2) {
        agent.kill("SIGSTOP");
        stopped.add(agent);
        done("agent stopped");
        setTimeout(() => {
          agent.kill("SIGCONT");
          stopped.delete(agent);
        }, stoppedMs);
      } else if (what === 3) {
        const [run] = descendantsOf(agent.pid);
        if (run !== undefined && attempt(() => process.kill(run, "SIGKILL")) === true) {
          done("run killed");
        }
      } else if (what === 4) {
        // Both: neither sees that the job is another's before it goes on.
        const all = [agent.pid, ...descendantsOf(agent.pid)];
        for (const pid of all) attempt(() => process.kill(pid, "SIGSTOP"));
        stopped.add(agent);
        done("agent and run stopped");
        setTimeout(() => {
          for (const pid of all) attempt(() => process.kill(pid, "SIGCONT"));
          stopped.delete(agent);
        }, stoppedMs);
      } else if (what === 5 && options.killServer !== undefined) {
        await server;
        server = options.killServer(below(100));
        done("server killed");
      }
      const views = await queue.list();
      numLeft = numJobs - views.filter(({ job }) => job.state === "done").length;
      isOver = numLeft === 0;
    }
    await submitting;
    await server;
  } finally {
    for (const agent of agents) {
      if (agent === undefined) continue;
      const ended = once(agent, "exit");
      agent.kill("SIGCONT");
      agent.kill("SIGTERM");
      await ended;
    }
  }
  const views = await queue.list();
  const problems = submitted.flatMap(({ id, name, outputDir }, index) => {
    const job = views.find((view) => view.job.id === id)?.job;
    if (index < (options.training?.numJobs ?? 0)) {
      const sha256 = weightsSha256(outputDir);
      if (job?.state === "done" && sha256 === options.training?.sha256) return [];
      return [`${id} ${name}: is ${job?.state} with the weights ${sha256} (${job?.error})`];
    }
    const problem = problemOf(job, attempt(() => keptSteps(outputDir)) ?? [], stepsOf(index));
    return problem === undefined ? [] : [`${id} ${name}: ${problem}`];
  });
  if (views.length !== numJobs) problems.push(`${views.length} jobs of ${numJobs} are there`);
  const numTaken = views.reduce((sum, { job }) => sum + job.epoch, 0);
  return { faults, problems, numTaken, said };
}

/** Of the weights that a run leaves. */
export const weightsSha256 = (outputDir: string): string | undefined =>
  attempt(() => {
    const bytes = readFileSync(join(outputDir, "model.safetensors"));
    return createHash("sha256").update(bytes).digest("hex");
  });

function problemOf(
  job: Job | undefined,
  kept: readonly KeptStep[],
  numSteps: number,
): string | undefined {
  if (job?.state !== "done") return `is ${job?.state ?? "lost"} (${job?.error ?? "no error"})`;
  const steps = kept.map(({ step }) => step);
  const expected = Array.from({ length: numSteps }, (_, i) => i + 1);
  const lives = kept.map(({ step, epoch, pid }) => `${step} by ${epoch} (${pid})`).join(", ");
  if (steps.join() !== expected.join()) return `made, of ${numSteps} steps: ${lives}`;
  const epochs = kept.map(({ epoch }) => epoch);
  if (epochs.some((epoch, i) => epoch < (epochs[i - 1] ?? 0))) {
    return `was written to by one that had lost it: ${lives}`;
  }
  return undefined;
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
