// Runs under seeded schedules of faults, in real processes:
//
//   npm run soak -- --minutes 60       as many schedules as fit
//   node scripts/soak.mjs --seed 17    one again
//   node scripts/soak.mjs --shards 2 --schedules 20    reducers of a run whose shards have mirrors are killed (1: have none)
//   node scripts/soak.mjs --kill-every 2    60 steps in which a random worker is killed every 2 seconds
//
// --real takes the real engine, --from and --schedules choose seeds, --at-a-time says how many run at once.
// Ends with 1 and the seeds that failed.

import { existsSync } from "node:fs";

const program = new URL("../dist/tests/chaos/soak.js", import.meta.url);
if (existsSync(program)) await import(program.href);
else {
  console.error("soak: not built; run: node scripts/setup.mjs --test");
  process.exitCode = 1;
}
