/**
 * Memory of each process of a run whose shards are processes, every one kept to a limit by the kernel:
 *
 * node dist/bench/shards/run.js [tiny|350M|1.1B] [--keep]
 *
 * A model of random weights is trained for a few steps by a worker that computes nothing, saved, and gone on with by
 * another number of shards; both runs have to end with the same SHA-256. Where no group of control can be made the
 * high-water marks are compared with the limits. The last line is JSON. Exit code 1: a limit was not kept.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { LimitedProcess } from "./limited-process.js";
import { type ModelShape, writeRandomModel } from "./random-model.js";

interface Case {
  readonly shape: ModelShape;
  readonly settings: Readonly<Record<string, unknown>>;
  /** Shards, and the limit of each in bytes: of the run, and of the one that goes on. */
  readonly runs: readonly (readonly [numShards: number, limitBytes: number])[];
  readonly coordinatorBytes: number;
  readonly workerBytes: number;
}

const gigabyte = 1e9;
const cases: Readonly<Record<string, Case>> = {
  tiny: {
    shape: { hidden: 512, layers: 8, intermediate: 1_408, heads: 8, vocabulary: 16_000 },
    settings: { max_steps: 4, save_strategy: "steps", save_steps: 2 },
    runs: [
      [3, 0.5 * gigabyte],
      [2, 0.65 * gigabyte],
    ],
    coordinatorBytes: 0.4 * gigabyte,
    workerBytes: 1 * gigabyte,
  },
  "350M": {
    shape: { hidden: 1_024, layers: 24, intermediate: 2_816, heads: 16, vocabulary: 32_000 },
    settings: { max_steps: 4, save_strategy: "steps", save_steps: 2 },
    runs: [
      [4, 2.2 * gigabyte],
      [3, 2.9 * gigabyte],
    ],
    coordinatorBytes: 1 * gigabyte,
    workerBytes: 4 * gigabyte,
  },
  "1.1B": {
    shape: { hidden: 2_048, layers: 20, intermediate: 5_632, heads: 32, vocabulary: 32_000 },
    settings: { max_steps: 1, save_strategy: "no", optim: "adafactor" },
    runs: [[8, 2.4 * gigabyte]],
    coordinatorBytes: 1 * gigabyte,
    workerBytes: 6 * gigabyte,
  },
};

interface ProcessPeak {
  readonly name: string;
  readonly limitMb: number;
  readonly peakMb: number;
  readonly isLimited: boolean;
}

interface TrainedRun {
  readonly sha256: string;
  readonly peaks: readonly ProcessPeak[];
}

const megabytes = (bytes: number): number => Math.round(bytes / 1e6);

async function train(
  { coordinatorBytes, workerBytes }: Case,
  configFile: string,
  [numShards, shardBytes]: readonly [number, number],
  more: readonly string[],
): Promise<TrainedRun> {
  const processes: LimitedProcess[] = [];
  let fail = (_error: Error): void => {};
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => {});
  const start = (name: string, limitBytes: number, args: readonly string[]): LimitedProcess => {
    const started = new LimitedProcess(name, limitBytes, args);
    processes.push(started);
    void started.exited.then((code) => {
      if (code !== 0)
        fail(new Error(`${name} ended with ${code}: ${started.output.slice(-2_000)}`));
    });
    return started;
  };
  try {
    const reducers = Array.from({ length: numShards }, (_, shard) =>
      start(`reducer-${shard + 1}-of-${numShards}`, shardBytes, [
        ...["reducer", "--listen", "127.0.0.1:0", "--metrics-port", "null"],
      ]),
    );
    const addresses = await Promise.all(
      reducers.map(async (reducer) => (await reducer.says(/listens at (\S+) for/))[1]),
    );
    const coordinator = start("coordinator", coordinatorBytes, [
      ...["coordinator", configFile, "--json-logs", "--reducers", JSON.stringify(addresses)],
      ...more,
    ]);
    const [, port] = await coordinator.says(/--coordinator [^\s:]+:(\d+)/);
    const worker = start("worker", workerBytes, [
      ...["worker", "--coordinator", `127.0.0.1:${port}`, "--metrics-port", "null"],
      ...["--engine-module", join(packageRoot, "dist/tests/support/light-engine.js"), "--use-cpu"],
    ]);
    const said = coordinator.says(/"mastersSha256":"([0-9a-f]{64})"/);
    const [, sha256 = ""] = await Promise.race([said, failed]);
    const ended = Promise.all([coordinator, worker, ...reducers].map((each) => each.exited));
    await Promise.race([ended, failed]);
    const peaks = processes.map(({ name, limitBytes, peakBytes, isLimited }) => ({
      ...{ name, isLimited },
      ...{ limitMb: megabytes(limitBytes), peakMb: megabytes(peakBytes) },
    }));
    return { sha256, peaks };
  } finally {
    for (const each of processes) each.kill();
  }
}

const [name = "350M"] = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const chosen = cases[name];
if (chosen === undefined) throw new Error(`There are ${Object.keys(cases).join(", ")}`);
const directory = await mkdtemp(join(tmpdir(), "lockstep-shards-"));
try {
  const model = join(directory, "model");
  const numParameters = await writeRandomModel(model, chosen.shape);
  const text = join(directory, "rows.txt");
  const words = ["the", "state", "of", "union", "is", "strong", "and", "peace"];
  await writeFile(
    text,
    Array.from({ length: 400 }, (_, i) => words[(i * 7 + i * i) % 8]).join(" "),
  );
  const configFile = join(directory, "job.yaml");
  const output = join(directory, "out");
  await writeFile(
    configFile,
    stringify({
      ...{ model_name_or_path: model, dataset: text, output_dir: output, max_length: 16 },
      ...{ workers: 1, per_device_train_batch_size: 1, gradient_accumulation_steps: 1 },
      ...{
        learning_rate: 1e-3,
        metrics_port: null,
        use_cpu: true,
        eval_strategy: "no",
        bf16: true,
      },
      ...chosen.settings,
    }),
  );
  const runs: TrainedRun[] = [];
  for (const [index, shards] of chosen.runs.entries()) {
    const more =
      index === 0
        ? []
        : [
            ...["--resume_from_checkpoint", join(output, "checkpoint-2")],
            ...["--output_dir", join(directory, "again")],
          ];
    runs.push(await train(chosen, configFile, shards, more));
  }
  const peaks = runs.flatMap((run) => run.peaks);
  for (const { name: process, limitMb, peakMb, isLimited } of peaks) {
    console.log(
      `${process.padEnd(18)} ${peakMb} MB of ${limitMb} MB${isLimited ? "" : " (not limited by the kernel)"}`,
    );
  }
  const isSame = new Set(runs.map(({ sha256 }) => sha256)).size === 1;
  const isKept = peaks.every(({ limitMb, peakMb }) => peakMb > 0 && peakMb <= limitMb);
  const stateMb = megabytes(numParameters * 12);
  console.log(JSON.stringify({ name, numParameters, stateMb, isSame, isKept, peaks }));
  if (!isSame || !isKept) process.exitCode = 1;
} finally {
  if (!process.argv.includes("--keep")) await rm(directory, { recursive: true, force: true });
}
