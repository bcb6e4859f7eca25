import { basename, extname, resolve } from "node:path";
import { hubTokenOf, isSecretKey, loadConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import { printable } from "#lib/core/terminal-text";
import { readRegularTextSync } from "#lib/core/regular-file";
import type { Job, JobRequestFields } from "#lib/queue/job";
import { maxConfigBytes, maxTriesAllowed, priorities } from "#lib/queue/job";
import type { JobQueue } from "#lib/queue/job-queue";
import { readCommandLine, usageOf } from "./command-line.js";
import { openQueueFor, queueOptions, wholeNumber, words } from "./queue-options.js";

/** Keys that the queue decides for its jobs. */
const ownKeys: Readonly<Record<string, string>> = {
  resume_from_checkpoint: "a job goes on from the newest checkpoint in its output_dir",
  overwrite_output_dir: "a job that goes on would remove what it has made",
  user_signal: "an agent asks a run to save by a signal",
};
/** What of them a job has anyway. */
const ownValues: Readonly<Record<string, readonly unknown[]>> = {
  resume_from_checkpoint: [null, false, true, "auto"],
  overwrite_output_dir: [false],
  user_signal: ["save"],
};
/** Of a name that a person gives; those of a sweep have its values too, and are cut. */
const maxNameChars = 100;
/** Jobs of one command; more are a slip of the hand. */
const maxJobsAtOnce = 1_000;

/** `lockstep submit`. Returns the exit code. */
export async function submitCommand(args: readonly string[]): Promise<number> {
  const usage = usageOf("submit");
  const { values, positionals } = readCommandLine(
    args,
    {
      ...queueOptions,
      priority: { type: "string", default: "0" },
      after: { type: "string", multiple: true },
      set: { type: "string", multiple: true },
      sweep: { type: "string", multiple: true },
      name: { type: "string" },
      "max-tries": { type: "string", default: "3" },
      quiet: { type: "boolean", default: false },
    },
    usage,
  );
  if (positionals.length === 0) usage("no configuration is given");
  const longest = values.name?.length ?? 0;
  if (longest > maxNameChars) {
    usage(`--name has ${longest} characters of at most ${maxNameChars}`);
  }
  const priority = wholeNumber(usage, "priority", values.priority, [
    priorities.lowest,
    priorities.highest,
  ]);
  const maxTries = wholeNumber(usage, "max-tries", values["max-tries"], [1, maxTriesAllowed]);
  const settings = (values.set ?? []).map((each) => setting(usage, "set", each));
  const sweeps = combinations(
    (values.sweep ?? []).map((each) => {
      const [key, list] = setting(usage, "sweep", each);
      return words([list]).map((value) => [key, value] as const);
    }),
  );
  if (positionals.length * sweeps.length > maxJobsAtOnce) {
    usage(
      `these are ${positionals.length * sweeps.length} jobs of at most ${maxJobsAtOnce} at once`,
    );
  }
  // All of them are read before one is queued: either all are, or none for a slip in the last file.
  const jobs: JobRequestFields[] = [];
  for (const file of positionals) {
    for (const sweep of sweeps) {
      const name = values.name ?? basename(file, extname(file));
      jobs.push({
        ...(await jobOf(file, [...settings, ...sweep], sweep, name)),
        ...{ priority, maxTries, after: words(values.after) },
      });
    }
  }
  const queue = await openQueueFor(values, usage, "submitter", true);
  try {
    await submitAll(queue, jobs, values);
  } finally {
    await queue.close();
  }
  return 0;
}

async function submitAll(
  queue: JobQueue,
  jobs: readonly JobRequestFields[],
  { json, quiet }: { readonly json: boolean; readonly quiet: boolean },
): Promise<void> {
  let numQueued = 0;
  for (const fields of jobs) {
    let job: Job;
    try {
      job = await queue.submit(fields);
    } catch (error) {
      if (numQueued > 0)
        process.stderr.write(`${counted(numQueued, "job")} before it are queued\n`);
      throw error;
    }
    numQueued++;
    if (json) process.stdout.write(`${JSON.stringify(job)}\n`);
    else if (quiet) process.stdout.write(`${job.id}\n`);
    else process.stdout.write(printable(`${job.id}  ${job.name}  ${job.outputDir}`) + "\n");
  }
}

async function jobOf(
  file: string,
  settings: readonly (readonly [string, string])[],
  sweep: readonly (readonly [string, string])[],
  name: string,
): Promise<Omit<JobRequestFields, "priority" | "maxTries" | "after">> {
  const refuse = (reason: string): never => {
    throw new LockstepError("E_JOB_CONFIG", { file, reason });
  };
  const flags = settings.map(([key, value]) => `--${key}=${value}`);
  const { config, warnings } = await loadConfig([file, ...flags], "train");
  for (const [key, reason] of Object.entries(ownKeys)) {
    const value: unknown = config[key as keyof typeof config];
    if (settings.some(([set]) => set === key) || ownValues[key]?.includes(value) === false) {
      refuse(`${key} is the queue's to set: ${reason}`);
    }
  }
  const text = readRegularTextSync(file, "configuration", maxConfigBytes + 1);
  if (Buffer.byteLength(text) > maxConfigBytes) refuse(`it has more than ${maxConfigBytes} bytes`);
  const secret =
    settings.find(([key]) => isSecretKey(key))?.[0] ??
    (hubTokenOf(config) === undefined ? secretIn(text) : "hub_token");
  if (secret !== undefined) {
    refuse(`${secret} would be kept in the queue, where others read it; agents take HF_TOKEN`);
  }
  if (sweep.length > 0 && config.nats_lease !== null) {
    refuse("nats_lease is the name of one run, and the jobs of a sweep are several");
  }
  for (const warning of warnings) process.stderr.write(`warning: ${file}: ${warning}\n`);
  const ofSweep = sweep.map(([key, value]) => `${key}=${value.replace(/[^\w.+-]+/g, "-")}`);
  const outputDir = resolve(
    config.output_dir,
    ...(ofSweep.length === 0 ? [] : [ofSweep.join(",")]),
  );
  // Two runs in one place would replace each other's checkpoints and results.
  const places =
    ofSweep.length === 0
      ? []
      : [
          `--output_dir=${outputDir}`,
          ...(config.checkpoint_store === null
            ? []
            : [`--checkpoint_store=${storeOfSweep(config.checkpoint_store, ofSweep)}`]),
        ];
  return {
    ...{ config: text, directory: process.cwd(), outputDir },
    name: [name, ...ofSweep].join(" ").slice(0, 200),
    flags: [...flags.filter((flag) => !places.some((place) => isOfOneKey(flag, place))), ...places],
  };
}

const isOfOneKey = (flag: string, other: string): boolean =>
  flag.startsWith(other.slice(0, other.indexOf("=") + 1));

/** Of letters that every store takes in a key as they are. */
const storeOfSweep = (store: string, ofSweep: readonly string[]): string =>
  `${store.replace(/\/+$/, "")}/${ofSweep.join("_").replaceAll("=", "-").replaceAll("+", "p")}`;

/** The name of a secret key that a line of YAML gives a value, also of one that is read for another tool and not used. */
function secretIn(text: string): string | undefined {
  const keys = [...text.matchAll(/^\s*["']?([a-z_]+)["']?\s*:\s*\S/gm)].map(([, key = ""]) => key);
  return keys.find(isSecretKey);
}

/** KEY=VALUE, the key as files have it. */
function setting(
  usage: (problem: string) => never,
  option: string,
  text: string,
): readonly [string, string] {
  const [, key = "", value = ""] = /^([A-Za-z][\w-]*)=([^]+)$/.exec(text) ?? [];
  if (key === "") usage(`--${option} takes KEY=VALUE, got "${text}"`);
  return [key.replaceAll("-", "_"), value];
}

/** Every way to take one of each. */
function combinations<T>(choices: readonly (readonly T[])[]): T[][] {
  return choices.reduce<T[][]>(
    (made, choice) => made.flatMap((before) => choice.map((each) => [...before, each])),
    [[]],
  );
}
