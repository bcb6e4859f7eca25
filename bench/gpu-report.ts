/**
 * Makes a table of lines "NAME<tab>JSON" on standard input, the JSON being that of bench/step.ts or of
 * bench/peers/gpu_step.py for GPT-2 124M. Run: node dist/bench/gpu-report.js PEAK_TFLOPS < lines
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
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

function report(peakTeraflops: number): void {
  console.log("| what | ms a micro-batch | tokens/s | MFU |\n| --- | --: | --: | --: |");
  for (const line of readFileSync(0, "utf8").trim().split("\n")) {
    const [name = "", json = ""] = line.split("\t");
    const { rows, tokens, microBatchSeconds } = JSON.parse(json) as Record<string, number>;
    const perSecond = (rows as number) / (microBatchSeconds as number);
    const mfu = modelFlopUtilisation(gpt2, tokens as number, perSecond, peakTeraflops);
    const cells = [
      name,
      ((microBatchSeconds as number) * 1000).toFixed(1),
      (perSecond * (tokens as number)).toFixed(0),
      `${(100 * mfu).toFixed(1)} %`,
    ];
    console.log(markdownRow(cells));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) report(Number(process.argv[2]));
