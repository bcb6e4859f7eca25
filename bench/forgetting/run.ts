/**
 * What fine-tuning forgets, and what methods do about it; what `npm run demo:forgetting` runs.
 *
 * node dist/bench/forgetting/run.js [--methods NAME,...] [--seeds N,...] [--out DIR] [--model MODEL] [--steps N]
 *
 * Trains the model on reports of tide gauges by each method and seed, a process each, one after the other, and writes
 * DIR/table.md and DIR/forgetting.svg of all that is there. A run that is done is not done again: DIR/results has a
 * file for each, which holds as long as its configuration is the same.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { stringify } from "yaml";
import { numThreads } from "#bench/frame/environment";
import { packageRoot } from "#lib/core/paths";
import { readSotu } from "#lib/data/datasets/sotu";
import { domainTexts } from "./domain.js";
import { intervalWords, methodFigures, type RunFigures } from "./figures.js";
import { common, type Method, methods } from "./methods.js";
import { forgettingPlot } from "./plot.js";

/** Against which the others are compared. */
const baseline = "nothing";

const { values: options } = parseArgs({
  options: {
    methods: { type: "string", default: methods.map(({ name }) => name).join() },
    seeds: { type: "string", default: "1,2,3" },
    out: { type: "string", default: join(packageRoot, "runs", "forgetting") },
    model: { type: "string", default: "SmolLM2-135M-Instruct" },
    steps: { type: "string", default: String(common.max_steps) },
    threads: { type: "string", default: String(numThreads()) },
  },
});
const out = resolve(options.out);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Characters of each speech, and one speech in so many is held out. */
const speechCharacters = 3_000;
const heldOutEvery = 5;

const rows = (texts: readonly string[]): string =>
  texts.map((text) => `${JSON.stringify({ text })}\n`).join("");

/** Both kinds of text with their held-out sides, in files of the directory. */
async function writeData(): Promise<Readonly<Record<string, string>>> {
  const speeches = (await readSotu()).map(({ text }) => text.slice(0, speechCharacters));
  const files = {
    dataset: rows(domainTexts("train", 400)),
    eval_dataset: rows(domainTexts("validation", 60)),
    general_dataset: rows(speeches.filter((_, i) => i % heldOutEvery !== 0)),
    general_eval_dataset: rows(speeches.filter((_, i) => i % heldOutEvery === 0)),
  };
  await mkdir(join(out, "data"), { recursive: true });
  const named = Object.entries(files).map(async ([key, text]) => {
    const file = join(out, "data", `${key}.jsonl`);
    await writeFile(file, text);
    return [key, file] as const;
  });
  return Object.fromEntries(await Promise.all(named));
}

interface Result extends RunFigures {
  /** SHA-256 of what the run was made of. */
  readonly digest: string;
}

const resultFile = (method: string, seed: number): string =>
  join(out, "results", `${method}-${seed}.json`);

async function resultOf(method: string, seed: number): Promise<Result | undefined> {
  const text = await readFile(resultFile(method, seed), "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Result);
}

/** The figures of a run's history, where both losses were measured. */
async function pointsOf(directory: string): Promise<RunFigures["points"]> {
  const state = JSON.parse(await readFile(join(directory, "trainer_state.json"), "utf8")) as {
    readonly log_history: readonly Readonly<Record<string, number>>[];
  };
  const of = (key: string): Map<number, number> =>
    new Map(
      state.log_history.flatMap((entry) =>
        entry[key] === undefined ? [] : [[entry["step"] ?? 0, entry[key]] as const],
      ),
    );
  const general = of("eval_general_loss");
  return [...of("eval_loss")].flatMap(([step, domain]) => {
    const loss = general.get(step);
    return loss === undefined ? [] : [{ step, domain, general: loss }];
  });
}

/** @throws Error where the run fails, with what it said last */
async function train(
  method: Method,
  seed: number,
  data: Readonly<Record<string, string>>,
): Promise<RunFigures> {
  const settings = {
    ...{ model_name_or_path: options.model, ...data, ...common, ...method.settings },
    ...{ max_steps: Number(options.steps), threads_per_worker: Number(options.threads), seed },
  };
  const texts = await Promise.all(Object.values(data).map((file) => readFile(file, "utf8")));
  const made = JSON.stringify([settings, texts.map((text) => text.length), texts]);
  const digest = createHash("sha256").update(made.replaceAll(out, "")).digest("hex");
  const done = await resultOf(method.name, seed);
  if (done?.digest === digest) {
    say(`${method.name}, seed ${seed}: done before, in ${done.seconds.toFixed(0)} s`);
    return done;
  }
  const directory = join(out, "run");
  await rm(directory, { recursive: true, force: true });
  const config = join(out, `${method.name}-${seed}.yaml`);
  await writeFile(config, stringify({ ...settings, output_dir: directory }));
  const startedAt = performance.now();
  const lines = await lockstep(["train-local", config]);
  const seconds = (performance.now() - startedAt) / 1000;
  const points = await pointsOf(directory);
  if (points.length < 2)
    throw new Error(`${config} measured nothing: ${lines.slice(-5).join(" ")}`);
  // The weights are of no more use.
  await rm(directory, { recursive: true, force: true });
  const result: Result = { method: method.name, seed, seconds, points, digest };
  await mkdir(join(out, "results"), { recursive: true });
  await writeFile(resultFile(method.name, seed), `${JSON.stringify(result, null, 2)}\n`);
  const [first, last] = [points[0], points.at(-1)];
  say(
    `${method.name}, seed ${seed}: domain ${first?.domain.toFixed(3)} to ${last?.domain.toFixed(3)}, general ${first?.general.toFixed(3)} to ${last?.general.toFixed(3)}, in ${seconds.toFixed(0)} s`,
  );
  return result;
}

/** @throws Error with the last lines of a command that fails */
async function lockstep(args: readonly string[]): Promise<readonly string[]> {
  const child = spawn(process.execPath, [join(packageRoot, "bin", "lockstep"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
  }
  const code = await new Promise<number | null>((done) => child.once("close", done));
  const lines = said.trim().split("\n");
  if (code !== 0) throw new Error(`lockstep ${args.join(" ")}:\n${lines.slice(-12).join("\n")}`);
  return lines;
}

/** Writes the table and the plot of all runs of the methods that are there. */
async function report(runs: readonly RunFigures[]): Promise<string> {
  const figures = methods.flatMap(({ name }) => methodFigures(runs, name, baseline) ?? []);
  const [first] = runs[0]?.points ?? [];
  const table = [
    "| method | seeds | domain loss | general loss | forgotten | against nothing | s a run |",
    "|---|---|---|---|---|---|---|",
    `| before training |  | ${first?.domain.toFixed(3)} | ${first?.general.toFixed(3)} |  |  |  |`,
    ...figures.map((each) =>
      [
        "",
        methods.find(({ name }) => name === each.method)?.title,
        each.seeds.length,
        intervalWords(each.domain),
        intervalWords(each.general),
        intervalWords(each.forgotten),
        each.againstBaseline === undefined ? "" : intervalWords(each.againstBaseline),
        each.seconds.toFixed(0),
        "",
      ]
        .join(" | ")
        .trim(),
    ),
    "",
  ].join("\n");
  await writeFile(join(out, "table.md"), table);
  await writeFile(join(out, "forgetting.svg"), forgettingPlot(runs, figures));
  return table;
}

const wanted = options.methods.split(",").map((name) => {
  const found = methods.find((method) => method.name === name);
  if (found !== undefined) return found;
  process.stderr.write(`${name} is none of ${methods.map((method) => method.name).join(", ")}\n`);
  return process.exit(2);
});
const seeds = options.seeds.split(",").map(Number);
const data = await writeData();
// A seed of all methods first, so that what is there can be compared early.
for (const seed of seeds) for (const method of wanted) await train(method, seed, data);
const all = await Promise.all(
  seeds.flatMap((seed) => methods.map(async ({ name }) => resultOf(name, seed))),
);
say(`\n${await report(all.filter((run) => run !== undefined))}`);
say(`${join(out, "table.md")}\n${join(out, "forgetting.svg")}`);
