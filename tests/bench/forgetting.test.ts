import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { domainTexts } from "#bench/forgetting/domain";
import { interval, methodFigures, type RunFigures } from "#bench/forgetting/figures";
import { forgettingPlot } from "#bench/forgetting/plot";
import { packageRoot } from "#lib/core/paths";
import { createTinyJob } from "#tests/support/tiny-job";

const run = (method: string, seed: number, general: number): RunFigures => ({
  ...{ method, seed, seconds: 60 },
  points: [
    { step: 0, domain: 5, general: 4 },
    { step: 40, domain: 0.5 + seed / 10, general },
  ],
});

test("intervals are Student's, and methods are compared seed by seed", () => {
  const { mean, half } = interval([1, 2, 3]);
  assert.equal(mean, 2);
  // scipy.stats.t.interval(0.95, 2, loc=2, scale=scipy.stats.sem([1, 2, 3])) is 2 -+ 2.48414
  assert.ok(Math.abs(half - 2.484_14) < 1e-3, String(half));
  assert.ok(Number.isNaN(interval([1]).half));
  const runs = [
    ...[run("nothing", 1, 5), run("nothing", 2, 6)],
    ...[run("ewc", 1, 4.5), run("ewc", 2, 5.3)],
  ];
  const ewc = methodFigures(runs, "ewc", "nothing");
  assert.deepEqual(ewc?.seeds, [1, 2]);
  assert.ok(Math.abs((ewc?.forgotten.mean ?? 0) - 0.9) < 1e-12);
  assert.ok(Math.abs((ewc?.againstBaseline?.mean ?? 0) + 0.6) < 1e-12);
  assert.equal(methodFigures(runs, "nothing", "nothing")?.againstBaseline, undefined);
  assert.equal(methodFigures(runs, "lora", "nothing"), undefined);
  const plot = forgettingPlot(
    runs,
    ["nothing", "ewc"].flatMap((name) => methodFigures(runs, name, "nothing") ?? []),
  );
  assert.equal([...plot.matchAll(/<polyline /g)].length, 4);
  assert.doesNotMatch(plot, /NaN|undefined/);
});

test("held-out reports are others than those that are learnt, and the same each time", () => {
  const [learnt, heldOut] = [domainTexts("train", 50), domainTexts("validation", 50)];
  assert.equal(new Set([...learnt, ...heldOut]).size, 100);
  assert.deepEqual(domainTexts("train", 50), learnt);
});

test("the demonstration measures each method, and does what is done not again", async (t) => {
  const job = await createTinyJob();
  t.after(job.remove);
  const out = join(job.directory, "demo");
  const demonstrate = (...args: string[]): string => {
    const made = spawnSync(
      process.execPath,
      [
        join(packageRoot, "dist/bench/forgetting/run.js"),
        ...["--model", join(job.directory, "model"), "--out", out, "--threads", "1"],
        ...["--steps", "2", "--seeds", "1", ...args],
      ],
      { encoding: "utf8" },
    );
    assert.equal(made.status, 0, made.stderr);
    return made.stdout;
  };
  demonstrate("--methods", "nothing,ewc");
  const said = demonstrate("--methods", "nothing,replay,lora");
  assert.match(said, /nothing, seed 1: done before/);
  const table = await readFile(join(out, "table.md"), "utf8");
  // One seed: no intervals, and each method's difference to nothing.
  assert.match(table, /\| EWC, .* \| 1 \| [\d.]+ \| [\d.]+ \| -?[\d.]+ \| -?[\d.]+ \|/);
  assert.match(table, /replay[^\n]*\n\| EWC[^\n]*\n\| LoRA/);
  assert.match(await readFile(join(out, "forgetting.svg"), "utf8"), /^<svg .*<\/svg>\n$/s);
});
