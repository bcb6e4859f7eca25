import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { RandomStream } from "#lib/core/random";
import { createInputs } from "./job.js";
import { Harness } from "./run-schedule.js";
import { kindOf, scheduleOf, shardScheduleOf } from "./schedule.js";
import type { Outcome } from "./stage.js";

/**
 * The program behind `npm run soak`: schedules of consecutive seeds, several at a time, for some minutes or some
 * number of them. Ends with 1 and the seeds that failed.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    seed: { type: "string" },
    from: { type: "string", default: "1" },
    schedules: { type: "string" },
    "at-a-time": { type: "string", default: String(availableParallelism()) },
    real: { type: "boolean", default: false },
    "kill-every": { type: "string" },
    shards: { type: "string" },
  },
});
const number = (name: string, text: string, least: number): number => {
  const value = Number(text);
  if (Number.isFinite(value) && value >= least) return value;
  console.error(`soak: --${name} must be a number from ${least}, got "${text}"`);
  process.exit(2);
};
const { real: isReal } = values;
/** Copies of each shard where reducers are killed, and nothing else happens. */
const numReplicas = values.shards === undefined ? undefined : number("shards", values.shards, 1);
if (numReplicas !== undefined && numReplicas !== 1 && numReplicas !== 2) {
  console.error(`soak: --shards must be 1 or 2, got "${values.shards}"`);
  process.exit(2);
}
const isOne = values.seed !== undefined;
const first = number("seed", values.seed ?? values.from, 0);
const numSchedules = isOne ? 1 : number("schedules", values.schedules ?? "1e9", 1);
const minutes = values.minutes ?? (isOne || values.schedules !== undefined ? "1e9" : "10");
const endMs = performance.now() + number("minutes", minutes, 0) * 60_000;
const numAtATime = isOne ? 1 : number("at-a-time", values["at-a-time"], 1);

const counts = { faults: new Map<string, number>(), ends: new Map<string, number>() };
function counted(names: readonly string[], into = new Map<string, number>()): Map<string, number> {
  for (const name of names) into.set(name, (into.get(name) ?? 0) + 1);
  return into;
}
const listed = (of: Map<string, number>): string =>
  [...of]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, n]) => `${name} ${n}`)
    .join(", ");

const failed: number[] = [];
let numDone = 0;
let numLives = 0;

function report(seed: number, outcome: Outcome): void {
  const { problems, faults, ends, lives, seconds } = outcome;
  numDone += 1;
  numLives += lives.length;
  counted(faults, counts.faults);
  counted(ends, counts.ends);
  const ended = ends.length > 0 ? `; ended: ${listed(counted(ends))}` : "";
  const what = `${listed(counted(faults)) || "nothing"}; ${lives.length} lives${ended}`;
  console.log(
    `${problems.length === 0 ? "ok    " : "FAILED"} seed ${seed}: ${what}; ${seconds.toFixed(1)} s`,
  );
  if (problems.length === 0) return;
  failed.push(seed);
  for (const problem of problems) console.log(`       ${problem}`);
  const ofShards = numReplicas === undefined ? "" : ` --shards ${numReplicas}`;
  const replay = `node scripts/soak.mjs --seed ${seed}${ofShards}${isReal ? " --real" : ""}`;
  console.log(`       replay: ${replay}`);
}

/** Kills random workers every so many seconds, until 60 steps are made. */
async function killAgainAndAgain(harness: Harness, everyMs: number): Promise<void> {
  const random = new RandomStream(first, "test", 1);
  let timer: NodeJS.Timeout | undefined;
  // As many kills as fit ten times into the run, whatever the engine takes.
  const paceMs = everyMs / 8;
  const outcome = await harness
    .run({
      schedule: { seed: first, numWorkers: 3, numShards: 2, isLarge: false, faults: [] },
      slot: 0,
      totalSteps: 60,
      paceMs,
      onEvent: ({ type }, stage) => {
        if (type !== "step.completed") return;
        timer ??= setInterval(() => stage.killWorker(random.nextBelow(stage.numWorkers)), everyMs);
      },
    })
    .finally(() => clearInterval(timer));
  report(first, outcome);
}

const inputs = await createInputs();
try {
  const harness = new Harness({ inputs, isReal });
  const everySeconds = values["kill-every"];
  if (everySeconds !== undefined) {
    await killAgainAndAgain(harness, number("kill-every", everySeconds, 0.1) * 1000);
  }
  let next = first;
  const takeTurns = async (slot: number): Promise<void> => {
    while (next < first + numSchedules && performance.now() < endMs) {
      const seed = next++;
      const schedule =
        numReplicas === undefined ? scheduleOf(seed) : shardScheduleOf(seed, numReplicas);
      if (isOne) {
        console.log(JSON.stringify(schedule));
        console.log(`faults: ${schedule.faults.map(kindOf).join(", ")}`);
      }
      try {
        report(seed, await harness.run({ schedule, slot, ...(isOne ? { log: console.log } : {}) }));
      } catch (error) {
        // Of the harness, or of what it looked for and did not find.
        console.log(`FAILED seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
        failed.push(seed);
      }
    }
  };
  const numTurns = everySeconds === undefined ? numAtATime : 0;
  await Promise.all(Array.from({ length: numTurns }, (_, slot) => takeTurns(slot)));
} finally {
  await inputs.remove();
}
console.log(
  `soak: ${numDone} schedules, ${numLives} lives of coordinators, ${failed.length} failed`,
);
console.log(`faults: ${listed(counts.faults)}`);
console.log(`ended by themselves: ${listed(counts.ends) || "none"}`);
if (failed.length > 0) {
  console.log(`failed seeds: ${failed.toSorted((a, b) => a - b).join(", ")}`);
  process.exitCode = 1;
}
