// What `npm start` runs: examples/quickstart.yaml, with a smaller step on a slow machine, so that it is over
// in minutes there too. Decided before the run, from the speed of this machine's products, and told.

import { spawn, spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const lockstep = join(root, "bin", "lockstep");

/** Floating-point operations of the whole quick start: 6 for each parameter and token trained, 2 evaluated. */
const numParameters = 134.5e6;
const tokensPerRow = 512;
const numOperations = (6 * 16 * 8 + 2 * 2 * 24) * tokensPerRow * numParameters;
/** Of the rate of products alone, what a run reaches. */
const efficiency = 0.6;
/** Longer than this it takes less. */
const patienceSeconds = 150;

/** What a slow machine takes instead. */
const smaller = {
  flags: [
    ...["--global-batch-size", "4", "--warmup-steps", "0", "--learning-rate", "1.5e-4"],
    ...["--max-eval-samples", "8"],
  ],
  text: "steps of 4 x 512 tokens at a rate of 1.5e-4 from the first one instead of 8 x 512 at 1e-4, and 8 rows of validation instead of 24",
  share: (6 * 16 * 4 + 2 * 2 * 8) / (6 * 16 * 8 + 2 * 2 * 24),
};

/** Flags for this machine; none where it is fast enough, or where its speed is not known. */
function flagsForThisMachine() {
  const { status, stdout } = spawnSync(process.execPath, [lockstep, "device", "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) return [];
  const { deviceType, bf16, gflopsPerSecond: rates } = JSON.parse(stdout);
  if (deviceType === "gpu" || rates === undefined) return [];
  const rate = bf16 ? rates.bfloat16 : rates.float32;
  const seconds = numOperations / (rate * 1e9 * efficiency);
  const speed = `${rate.toFixed(0)} GFLOP/s in ${bf16 ? "bfloat16" : "float32"}`;
  if (seconds <= patienceSeconds) {
    console.log(`quick start: about ${minutes(seconds)} at this machine's ${speed}`);
    return [];
  }
  const left = `about ${minutes(seconds * smaller.share)} at this machine's ${speed}, not ${minutes(seconds)}`;
  console.log(`quick start: ${smaller.text}: ${left}`);
  return smaller.flags.filter((_, i, all) => !isGiven(all[i - (i % 2)]));
}

/** What a person asks for stands, and is not given twice. */
const isGiven = (flag) =>
  process.argv.some((word) => word.split("=")[0].replaceAll("_", "-") === flag);

const minutes = (seconds) => {
  const count = Math.max(1, Math.round(seconds / 60));
  return count === 1 ? "a minute" : `${count} minutes`;
};

// Another start is for the same directory, whatever this machine's speed makes of it.
const again = process.argv.some((word) => /^--(no-)?(overwrite|resume|output)/.test(word))
  ? []
  : ["--overwrite-output-dir"];
const child = spawn(
  process.execPath,
  [
    lockstep,
    "train",
    join(root, "examples", "quickstart.yaml"),
    ...flagsForThisMachine(),
    ...again,
    ...process.argv.slice(2),
  ],
  { stdio: "inherit", cwd: root },
);
// What the terminal sends reaches the child by itself, and it ends in its own time; npm sends SIGTERM to this
// process only.
for (const signal of ["SIGINT", "SIGQUIT", "SIGHUP"]) process.on(signal, () => {});
for (const signal of ["SIGTERM", "SIGUSR1", "SIGUSR2"]) {
  process.on(signal, () => child.kill(signal));
}
child.on("error", (error) => {
  console.error(`quick start: ${error.message}`);
  process.exitCode = 1;
});
child.on("exit", (code, signal) => {
  if (signal === null) process.exitCode = code ?? 1;
  else process.kill(process.pid, signal);
});
