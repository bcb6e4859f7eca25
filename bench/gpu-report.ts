/**
 * The table of bench/gpu.sh, out of lines "NAME<tab>MiB on the card<tab>JSON" on standard input, the JSON
 * being that of bench/full-step.ts or bench/peers/step.py for GPT-2 124M.
 *
 * node dist/bench/gpu-report.js PEAK_TFLOPS < lines
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { median } from "./frame/compare.js";
import { markdownRow } from "./frame/report.js";

const gpt2 = { numParameters: 124_439_808, numLayers: 12, width: 768 };

/**
 * Model FLOP utilisation as LLM Foundry counts it: forward takes 2 P T and 4 L D T^2 for attention a
 * sequence, backward twice that.
 *
 * @param peakTeraflops of the card in the compute type, dense
 */
export function modelFlopUtilisation(
  model: { readonly numParameters: number; readonly numLayers: number; readonly width: number },
  numTokens: number,
  sequencesPerSecond: number,
  peakTeraflops: number,
): number {
  const attention = 4 * model.numLayers * model.width * numTokens ** 2;
  const forward = 2 * model.numParameters * numTokens + attention;
  return (3 * forward * sequencesPerSecond) / (peakTeraflops * 1e12);
}

/** One process of bench/gpu.sh. */
interface Run {
  readonly name: string;
  readonly peakMiB: number;
  readonly values: Readonly<Record<string, number>>;
}

/** Reads a line of three fields between tabs: the name, MiB, what the process printed. */
function parseRun(line: string): Run {
  const [name = "", peakMiB, json = ""] = line.split("\t");
  const { values } = JSON.parse(json) as { values: Record<string, number> };
  return { name, peakMiB: Number(peakMiB), values };
}

/**
 * A table with a row a name: medians over the processes of that name.
 *
 * @param lines as bench/gpu.sh collects them
 */
export function gpuTable(lines: readonly string[], peakTeraflops: number): string {
  const runs = lines.map(parseRun);
  const rows = [...new Set(runs.map(({ name }) => name))].map((name) => {
    const ofName = runs.filter((run) => run.name === name);
    const shape = Object.keys(ofName[0]?.values ?? {})
      .find((key) => key.startsWith("step-"))
      ?.slice("step-".length) as string;
    const [numRows, numTokens] = shape.split("x").map(Number) as [number, number];
    const medianOf = (value: string) =>
      median(ofName.map(({ values }) => values[`${value}-${shape}`] as number));
    const [step, microBatch] = [medianOf("step"), medianOf("micro-batch")];
    const mfu = modelFlopUtilisation(gpt2, numTokens, numRows / microBatch, peakTeraflops);
    return markdownRow([
      name,
      (microBatch * 1000).toFixed(1),
      (step * 1000).toFixed(1),
      ((numRows * numTokens) / step).toFixed(0),
      `${(100 * mfu).toFixed(1)} %`,
      (median(ofName.map(({ peakMiB }) => peakMiB)) / 1024).toFixed(1),
    ]);
  });
  const head = markdownRow([
    "what",
    "ms a micro-batch",
    "ms a step",
    "tokens/s",
    "MFU of a micro-batch",
    "GiB on the card",
  ]);
  return [head, "| --- | --: | --: | --: | --: | --: |", ...rows].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const lines = readFileSync(0, "utf8").trim().split("\n");
  console.log(gpuTable(lines, Number(process.argv[2])));
}
