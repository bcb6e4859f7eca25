/**
 * What a checkpoint costs the training of 135M and 350M parameters with AdamW in bfloat16, saved every 20 steps.
 *
 * node dist/bench/checkpoints.js [135M|350M|all] [copied|own|both] [DIRECTORY]
 *
 * Shards are threads, as in a run; nobody computes meanwhile. Time lost is that for which training stands still and the
 * processor time of all threads of the save, which workers would have had, over the cores; steps are those of 8 x 512
 * tokens that other rows measured on two of these cores. With "copied" the shards' arrays are copied first, with "own"
 * they are written from the shards' memory: a step's update waits for what is read after its groups are there, as in
 * a run of steps that long (coordinator/copy-choice.ts).
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { startShardThread } from "#coordinator/reducer/client";
import { ShardGroup } from "#coordinator/shards";
import { saveAtomically, writeModelDirectory, writeOptimizerState } from "#lib/checkpoint/index";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { buildParameterLayout } from "#lib/core/parameter-layout";

const [askedShape = "all", askedWay = "both", place = tmpdir()] = process.argv.slice(2);
const stepsBetween = 20;
const numShards = 2;
const width = 1024;
/** Matrices of one width, as many as make the number of parameters. */
const shapes = [
  // 386 tokens/s by two workers with 124M, bench/results/table_2x-amd-epyc_2026-11-28.md.
  { name: "135M", numParameters: 134_515_008, stepSeconds: 10.6 },
  // Four micro-batches of 1024 tokens, bench/results/memory_2x-amd-epyc_2026-11-25.md.
  { name: "350M", numParameters: 354_823_168, stepSeconds: 4 * 3.37 },
];

const layoutOf = (numParameters: number) => {
  const rows = 12 * width;
  const count = Math.floor(numParameters / (rows * width));
  const matrices = Array.from({ length: count }, (_, i) => ({
    name: `layers.${i}.weight`,
    shape: [rows, width],
  }));
  const left = Math.floor((numParameters - count * rows * width) / width);
  return buildParameterLayout(
    [...matrices, { name: "embed.weight", shape: [left, width] }],
    "bfloat16",
  );
};

async function measure(
  directory: string,
  { name, numParameters, stepSeconds }: (typeof shapes)[number],
): Promise<void> {
  const layout = layoutOf(numParameters);
  const shards = await ShardGroup.start(startShardThread, {
    ...{ numShards, layout, gradientGroups: 2, listenHost: "127.0.0.1", security: {} },
    optimizer: {
      name: "adamw",
      settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
    },
    life: { runId: "bench", epoch: 1 },
  });
  const fill = async ({ masters }: { readonly masters: Float32Array }): Promise<void> => {
    for (let i = 0; i < masters.length; i++) masters[i] = (i % 1_000) * 1e-4;
  };
  await shards.load({ fill }, 0);
  const held: Awaited<ReturnType<typeof shards.hold>>[] = [];
  for (const way of ["copied", "copied", "own", "own"] as const) {
    if (askedWay !== "both" && askedWay !== way) continue;
    const before = process.cpuUsage();
    const startedAt = performance.now();
    const into = way === "own" ? undefined : held[0]?.snapshot;
    const state = await shards.hold(() => way === "copied", into as never);
    if (way === "copied") held[0] = state;
    else held.length = 0;
    const { snapshot } = state;
    let [bytes, readSeconds] = [0, 0];
    await saveAtomically(join(directory, "checkpoint-20"), async (temporary) => {
      await writeFile(join(directory, "config.json"), "{}");
      const writers = await WriterThreads.start(2);
      const tensors = layout.tensors.map(({ name: tensor, shape, offset, size }) => ({
        ...{ name: tensor, shape },
        read: () => ({
          parts: snapshot.flatMap(({ range, masters }) => {
            const [start, end] = [
              Math.max(range.start, offset),
              Math.min(range.end, offset + size),
            ];
            return start < end ? [masters.subarray(start - range.start, end - range.start)] : [];
          }),
          finiteAfterStep: 20,
        }),
      }));
      const { openTarget } = writers;
      await Promise.all([
        writeModelDirectory(temporary, {
          ...{ sourceDir: directory, dtype: "bfloat16", tensors, openTarget },
        }),
        writeOptimizerState(temporary, snapshot, {}, openTarget),
      ]);
      for (const { sizeBytes } of writers.written.values()) bytes += sizeBytes;
      await writers.close();
      readSeconds = (performance.now() - startedAt) / 1000;
    });
    state.release();
    const seconds = (performance.now() - startedAt) / 1000;
    const { user, system } = process.cpuUsage(before);
    const cpuSeconds = (user + system) / 1e6;
    // The first step after the save computes its groups while the arrays are read.
    const waitSeconds =
      way === "own" ? Math.max(0, readSeconds - stepSeconds) : state.waitedSeconds();
    const lost = waitSeconds + cpuSeconds / availableParallelism();
    const share = lost / (stepsBetween * stepSeconds);
    const shown = [
      `${name} ${way}: ${(bytes / 1e9).toFixed(2)} GB in ${seconds.toFixed(1)} s, read in ${readSeconds.toFixed(1)} s`,
      `stands still ${waitSeconds.toFixed(2)} s, processors ${cpuSeconds.toFixed(1)} s`,
      `${(100 * share).toFixed(2)} % of ${stepsBetween} steps of ${stepSeconds.toFixed(1)} s`,
      `load ${(loadavg()[0] ?? 0).toFixed(1)}`,
    ];
    process.stdout.write(`${shown.join("; ")}\n`);
  }
  await shards.close();
}

const directory = await mkdtemp(join(place, "checkpoints-"));
try {
  for (const shape of shapes) {
    if (askedShape === "all" || askedShape === shape.name) await measure(directory, shape);
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
