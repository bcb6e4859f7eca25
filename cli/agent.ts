import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { counted } from "#lib/core/format";
import { expandHome } from "#lib/core/home-path";
import { cacheDirectory } from "#lib/core/paths";
import { runCommand } from "#run/job-process";
import { QueueAgent } from "#run/queue-agent";
import { WorkerAgent } from "#run/worker-agent";
import { flagsOf, keysOf, showsSecret } from "./agent-flags.js";
import { readCommandLine, usageOf } from "./command-line.js";
import { natsSettingsOf } from "./nats-options.js";
import { openQueue, queueOptions, wholeNumber } from "./queue-options.js";
import { exitCodes, onStopSignals } from "./stop-signals.js";

/** A lease that is shorter than a garbage collection or a slow file system would be lost for nothing. */
const leaseLimitsMs = [1_000, 3_600_000] as const;
const graceLimitsMs = [0, 86_400_000] as const;

/** A whole run on this machine, a run's coordinator, or a worker of the runs of such. */
const roles = ["train", "coordinator", "worker"] as const;

/** Keys that a run of a queue has no use for, and why. */
const refusedKeys: Readonly<Record<string, string>> = {
  standby: "the queue decides who has a job, and takes it from an agent that is gone",
  resume_from_checkpoint: "a job goes on from the newest checkpoint in its output_dir",
  overwrite_output_dir: "a job that goes on would remove what it has made",
  user_signal: "an agent asks a run to save by a signal",
};

/** `lockstep agent`. Returns the exit code. */
export async function agentCommand(args: readonly string[]): Promise<number> {
  const usage = usageOf("agent");
  // What follows -- is for the runs.
  const end = args.indexOf("--");
  const [own, given] = end < 0 ? [args, []] : [args.slice(0, end), args.slice(end + 1)];
  const { values } = readCommandLine(
    own,
    {
      ...queueOptions,
      name: { type: "string", default: hostname() },
      role: { type: "string", default: "train" },
      jobs: { type: "string" },
      "until-empty": { type: "boolean", default: false },
      "lease-ms": { type: "string", default: "30000" },
      "grace-ms": { type: "string", default: "25000" },
      "work-dir": { type: "string", default: join(cacheDirectory(), "jobs") },
    },
    usage,
    { allowPositionals: false },
  );
  if (values.json) usage("--json is none of this command's options");
  const role = roles.find((each) => each === values.role);
  if (role === undefined) {
    return usage(`--role is one of ${roles.join(", ")}, got "${values.role}"`);
  }
  const log = (text: string): void => {
    process.stdout.write(`${new Date().toISOString()} ${text}\n`);
  };
  // What happens in a run can be watched where its job is queued, unless the job says where.
  const settings =
    values.queue === undefined
      ? natsSettingsOf(values, (problem) => usage(`--queue DIR or ${problem}`))
      : undefined;
  for (const key of role === "worker" ? [] : keysOf(given)) {
    const reason = refusedKeys[key];
    if (reason !== undefined) usage(`--${key} is not for a run of a queue: ${reason}`);
  }
  const drain = new AbortController();
  const signals = onStopSignals({
    onFirst: () => {
      log("leaving: a job in work is stopped with a checkpoint and given back");
      drain.abort();
      return true;
    },
    onSecond: () => {},
    onUserSignal: (signal) => {
      log(`${signal} has no effect on an agent: lockstep checkpoint ID lets a job save`);
      return true;
    },
  });
  const common = {
    name: values.name.slice(0, 200),
    graceMs: wholeNumber(usage, "grace-ms", values["grace-ms"], graceLimitsMs),
    maxJobs:
      values.jobs === undefined
        ? undefined
        : wholeNumber(usage, "jobs", values.jobs, [1, Number.MAX_SAFE_INTEGER]),
    untilEmpty: values["until-empty"],
    onLine: log,
  };
  const leaseMs = wholeNumber(usage, "lease-ms", values["lease-ms"], leaseLimitsMs);
  const workDirectory = resolve(expandHome(values["work-dir"]));
  const queue = await openQueue(values, {
    ...{ usage, role: "agent", mayMake: true },
    patienceMs: Number.POSITIVE_INFINITY,
    onNews: log,
    signal: drain.signal,
  });
  try {
    log(`agent ${common.name} (${role}) takes the jobs of ${queue.place}`);
    if (settings !== undefined && role !== "worker" && showsSecret(settings, given)) {
      log(
        "warning: runs publish no events: they would show credentials in clear text, which --insecure allows this agent alone; -- --insecure allows it to its runs too, and whoever calls to join them",
      );
    }
    const agent =
      role === "worker"
        ? new WorkerAgent(queue, { ...common, flags: given })
        : new QueueAgent(queue, {
            ...common,
            ...{ leaseMs, directory: workDirectory, command: runCommand(role) },
            flags: flagsOf(settings, given),
            without: keysOf(given),
          });
    const numJobs = await agent.run(drain.signal);
    log(`ends after ${counted(numJobs, "job")}`);
    const received = signals.received();
    return received === undefined ? 0 : exitCodes[received];
  } finally {
    signals.remove();
    await queue.close();
  }
}
