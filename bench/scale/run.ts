/**
 * Scaling of the synchronisation on this machine: the real coordinator and reducer shards, simulated
 * workers over the real wire (no TensorFlow, no compute). A process a point.
 *
 *   node dist/bench/scale/run.js [--only NAME[/INDEX]] [--json FILE] | --from FILE
 *
 * Prints the tables. --json also appends each point to FILE, a line each; --from prints such a file.
 */
import { spawn } from "node:child_process";
import { appendFileSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { describeHost } from "#bench/frame/environment";
import { type PointOptions, type PointResult, pointTable } from "./table.js";

const point = (
  millionParameters: number,
  numWorkers: number,
  numShards: number,
  more: Partial<PointOptions> = {},
): PointOptions => ({
  ...{ millionParameters, numWorkers, numShards },
  ...{ groupsPerWorker: 1, numSteps: 2, numHosts: Math.min(2, numWorkers) },
  ...more,
});

/** Series by what they vary. A run takes less than 100 s a point on two cores. */
const series: Readonly<Record<string, readonly PointOptions[]>> = {
  workers: [
    ...[2, 4, 8].map((numWorkers) => point(124, numWorkers, 2)),
    ...[16, 32].map((numWorkers) => point(124, numWorkers, 2, { numSteps: 1 })),
  ],
  shards: [1, 4, 8].map((numShards) => point(124, 8, numShards)),
  // 64 workers take 16 GB a step with 124M parameters: a quarter of them, the bytes of 16 workers.
  connections: [16, 64].map((numWorkers) => point(31, numWorkers, 2)),
  groups: [point(124, 4, 2, { groupsPerWorker: 4, numSteps: 1 })],
  size: [
    point(355, 2, 2),
    point(355, 4, 4, { numSteps: 1 }),
    point(774, 2, 4, { numSteps: 1, numHosts: 1 }),
    point(1_000, 1, 8, { numSteps: 1, numHosts: 1 }),
  ],
};

const { values } = parseArgs({
  options: { only: { type: "string" }, json: { type: "string" }, from: { type: "string" } },
});

async function measure(options: PointOptions): Promise<PointResult | string> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL("./point.js", import.meta.url)), JSON.stringify(options)],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return code === 0 ? (JSON.parse(stdout) as PointResult) : stderr.trim();
}

const results = new Map<string, PointResult[]>();
const leftOut: string[] = [];
const keep = (name: string, result: PointResult): void => {
  results.set(name, [...(results.get(name) ?? []), result]);
};
if (values.from === undefined) {
  for (const [name, points] of Object.entries(series)) {
    for (const [index, options] of points.entries()) {
      if (![undefined, name, `${name}/${index}`].includes(values.only)) continue;
      const result = await measure(options);
      if (typeof result === "string") {
        leftOut.push(`${options.millionParameters}M, ${options.numWorkers} workers: ${result}`);
        continue;
      }
      keep(name, result);
      if (values.json !== undefined) {
        appendFileSync(values.json, `${JSON.stringify({ series: name, ...result })}\n`);
      }
    }
  }
} else {
  for (const line of readFileSync(values.from, "utf8").trim().split("\n")) {
    const { series: name, ...result } = JSON.parse(line) as PointResult & { series: string };
    keep(name, result);
  }
}
console.log(describeHost().join(", "));
for (const [name, points] of results) console.log(`\n${name}\n\n${pointTable(points)}`);
for (const line of leftOut) console.log(`\n${line}`);
