/**
 * Whether runs of the same batches ended alike.
 *
 * node dist/bench/long-run/compare.js REFERENCE.json OTHER.json ...
 *
 * Exits with 1 if a final training loss (mean of the last 20 steps) or a validation loss is more than 0.5 %
 * from the reference's.
 */
import { readFileSync } from "node:fs";
import { median } from "#bench/frame/compare";

interface Outcome {
  readonly losses: readonly number[];
  readonly validationLoss: number;
  readonly seconds: readonly number[];
}

const tolerance = 0.005;
const smoothedSteps = 20;

const [referenceFile, ...files] = process.argv.slice(2);
if (referenceFile === undefined || files.length === 0) {
  process.stderr.write("usage: compare.js REFERENCE.json OTHER.json ...\n");
  process.exit(2);
}
const read = (file: string): Outcome => JSON.parse(readFileSync(file, "utf8")) as Outcome;
const finalLoss = ({ losses }: Outcome): number =>
  losses.slice(-smoothedSteps).reduce((sum, loss) => sum + loss, 0) / smoothedSteps;

const reference = read(referenceFile);
process.stdout.write(
  "| run | final loss | validation loss | s a step | holds |\n|---|---|---|---|---|\n",
);
for (const file of [referenceFile, ...files]) {
  const outcome = read(file);
  const errors = [
    finalLoss(outcome) / finalLoss(reference) - 1,
    outcome.validationLoss / reference.validationLoss - 1,
  ];
  const holds =
    outcome.losses.length === reference.losses.length &&
    errors.every((error) => Math.abs(error) <= tolerance);
  if (!holds) process.exitCode = 1;
  const percent = errors.map((error) => `${(100 * error).toFixed(2)} %`);
  process.stdout.write(
    `| ${file} | ${finalLoss(outcome).toFixed(4)} (${percent[0]}) ` +
      `| ${outcome.validationLoss.toFixed(4)} (${percent[1]}) ` +
      `| ${median(outcome.seconds).toFixed(2)} | ${holds ? "yes" : "no"} |\n`,
  );
}
