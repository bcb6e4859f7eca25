import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { ModelWeights, readTrainerState } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// The whole command in real processes, on a tiny model and with an engine that needs no TensorFlow.

let job: TinyJob;
let directory = "";

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  });
  directory = job.directory;
});

after(() => job.remove());

const lockstep = (
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment?: Readonly<Record<string, string>>,
) => lockstepCommand(args, join(job.directory, "cache"), onEvent, environment);

const train = (
  name: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment?: Readonly<Record<string, string>>,
) =>
  lockstep(
    [
      "train",
      join(directory, "job.yaml"),
      "--json-logs",
      "--output_dir",
      join(directory, name),
      ...args,
    ],
    onEvent,
    environment,
  );

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

test("a run from a configuration to a model directory, then the same with one worker", async () => {
  const saving = ["--save_strategy", "steps", "--save_steps", "3"];
  const two = await train("two", [...saving, "--min_workers", "2"]);
  assert.equal(two.code, 0, two.stderr);
  assert.equal(two.stderr, "");
  assert.equal(two.of("step.completed").length, 6);
  assert.deepEqual(
    two.of("evaluation.completed").map(({ step }) => step),
    [0, 6],
  );
  assert.deepEqual(
    two.of("sample.generated").map(({ step }) => step),
    [0, 6],
  );
  assert.equal(two.of("worker.joined").length, 2);
  assert.deepEqual(two.of("worker.lost"), []);
  assert.equal(two.of("worker.left").length, 2);
  const output = join(directory, "two");
  const weights = await ModelWeights.open(output);
  assert.ok(weights.names().includes("model.embed_tokens.weight"));
  await weights.close();
  for (const file of ["config.json", "tokenizer.json", "lockstep.yaml", "logs/worker-1.log"]) {
    assert.ok((await stat(join(output, file))).size > 0, file);
  }
  const state = await readTrainerState(join(output, "checkpoint-6"));
  assert.equal(state.global_step, 6);
  assert.equal(state.max_steps, 6);
  const logged = state.log_history.filter((entry) => "loss" in entry);
  assert.deepEqual(
    logged.map(({ step }) => step),
    [2, 4, 6],
  );
  assert.ok((await stat(join(output, "checkpoint-3/lockstep/state.json"))).size > 0);

  const one = await train("one", ["--workers=1", "--global-batch-size=8", "--gradient-groups=2"]);
  assert.equal(one.code, 0, one.stderr);
  assert.match(digestOf(two) ?? "", /^[0-9a-f]{64}$/);
  assert.equal(digestOf(one), digestOf(two));
});

test("Ctrl-C finishes the step, saves and exits 130; the resumed run ends like one that was not stopped", async () => {
  let isSent = false;
  const stopped = await train("stopped", ["--max_steps", "100000"], (event, child) => {
    if (event.type === "step.completed" && event.step >= 3 && !isSent) {
      isSent = true;
      child.kill("SIGINT");
    }
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  const completed = stopped.of("run.completed")[0];
  assert.equal(completed?.outcome, "interrupted");
  const step = completed?.step ?? 0;
  assert.ok(step >= 3 && step < 100_000);
  assert.equal(completed?.directory, join(directory, "stopped", `checkpoint-${step}`));

  const total = String(step + 4);
  const resumed = await train("stopped", [
    "--max_steps",
    total,
    "--resume_from_checkpoint",
    "true",
  ]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(resumed.of("step.completed")[0]?.step, step + 1);
  const whole = await train("whole", ["--max_steps", total]);
  assert.equal(whole.code, 0, whole.stderr);
  assert.equal(digestOf(resumed), digestOf(whole));

  for (const [key, value] of [
    ["data_seed", "7"],
    ["max_train_samples", "20"],
  ] as const) {
    const other = await train("stopped", [
      ...["--max_steps", total, "--resume_from_checkpoint", "true", `--${key}`, value],
    ]);
    assert.equal(other.code, 1);
    assert.match(other.stderr, new RegExp(`E_RESUME_MISMATCH.*${key} was .* and is now ${value}`));
  }
});

test("Ctrl-C before a worker has joined ends soon, and names weights that exist", async () => {
  const stopped = await train("early", [], (event, child) => {
    if (event.type === "phase.changed" && event.phase === "waiting-for-workers") {
      child.kill("SIGINT");
    }
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  const completed = stopped.of("run.completed")[0];
  assert.equal(completed?.step, 0);
  assert.equal(completed?.directory, join(directory, "model"));
  // Without a word to them, workers that were still starting looked for the coordinator and were killed.
  const log = await readFile(join(directory, "early", "logs", "worker-1.log"), "utf8");
  assert.match(log, /(left|interrupted) after 0 gradient groups/);
});

test("Ctrl-C after the last step saves the model and exits 130 all the same", async () => {
  // The evaluation after it lasts until the signal is there.
  const paced = [
    ...["--engine_module", join(packageRoot, "dist/tests/support/paced-engine.js")],
    ...["--eval_on_start", "false"],
  ];
  const stopped = await train(
    "late",
    paced,
    (event, child) => {
      if (event.type === "step.completed" && event.step === 6) child.kill("SIGINT");
    },
    { LOCKSTEP_TEST_EVALUATION_MS: "2000" },
  );
  assert.equal(stopped.code, 130, stopped.stderr);
  assert.equal(stopped.of("run.completed")[0]?.outcome, "finished");
  assert.ok((await stat(join(directory, "late", "model.safetensors"))).size > 0);
  // Its evaluation is left to whoever goes on.
  const isLast = ({ step }: { readonly step: number }): boolean => step === 6;
  assert.equal(stopped.of("evaluation.completed").filter(isLast).length, 0);
  const again = await train("late", [...paced, "--resume_from_checkpoint", "true"]);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(again.of("evaluation.completed").filter(isLast).length, 1);
  assert.equal(digestOf(again), digestOf(stopped));
});

test("a reader of the output that goes away does not end the run", async () => {
  const command = [join(packageRoot, "bin/lockstep"), "train", join(directory, "job.yaml")];
  const output = join(directory, "unread");
  const child = spawn(process.execPath, [...command, "--output_dir", output], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, LOCKSTEP_CACHE: join(directory, "cache") },
  });
  child.stdout.once("data", () => child.stdout.destroy());
  const code = await new Promise((resolve) => child.on("exit", resolve));
  assert.equal(code, 0);
  assert.ok((await stat(join(output, "model.safetensors"))).size > 0);
});

test("kill -9 of a worker: it is started again, and the result is the same", async () => {
  const undisturbed = await train("calm", ["--max_steps", "60"]);
  let isKilled = false;
  const pids = new Map<string, number>();
  const disturbed = await train("killed", ["--max_steps", "60"], (event) => {
    if (event.type === "worker.joined") pids.set(event.workerId, event.pid);
    if (event.type === "group.leased" && event.step === 2 && !isKilled) {
      isKilled = true;
      process.kill(pids.get(event.workerId) ?? 0, "SIGKILL");
    }
  });
  assert.equal(disturbed.code, 0, disturbed.stderr);
  assert.equal(disturbed.of("worker.lost").length, 1);
  assert.match(disturbed.of("worker.lost")[0]?.reason ?? "", /SIGKILL/);
  assert.equal(digestOf(disturbed), digestOf(undisturbed));
});

test("workers that cannot start end the run, with the end of their log", async () => {
  const module = join(directory, "broken.mjs");
  await writeFile(module, "throw new Error('this engine is broken');");
  const outcome = await train("broken", ["--engine_module", module, "--max_worker_restarts", "1"]);
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /"code":"E_(WORKERS_EXHAUSTED|WORKER_FAILED)"/);
  assert.ok(outcome.lines.some((line) => line.includes("this engine is broken")));
});

test("bad input: one line with the code, one with the way out, no stack", async (t) => {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
  t.after(() => holder.close());
  const address = holder.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const empty = join(directory, "empty.txt");
  await writeFile(empty, "");
  const cases: [args: string[], pattern: RegExp][] = [
    [["--learning_rat", "1"], /^E_CONFIG_UNKNOWN_KEY: .*did you mean learning_rate\?$/],
    [["--model_name_or_path", "no-such-model"], /^E_MODEL_NOT_FOUND: .*no-such-model/],
    [["--dataset", empty], /^E_DATASET_EMPTY: /],
    [["--max_length", "100000"], /^E_SEQUENCE_LENGTH: max_length /],
    [["--metrics_port", String(port)], /^E_PORT_IN_USE: /],
    [["--listen", `127.0.0.1:${port}`], /^E_PORT_IN_USE: /],
  ];
  for (const [args, pattern] of cases) {
    const { code, stderr } = await lockstep([
      "train",
      join(directory, "job.yaml"),
      "--output_dir",
      join(directory, "bad"),
      ...args,
    ]);
    assert.equal(code, 1, args.join(" "));
    const lines = stderr.trimEnd().split("\n");
    assert.equal(lines.length, 2, stderr);
    assert.match(lines[0] ?? "", pattern);
    assert.match(lines[1] ?? "", /^ {2}\S/);
  }
  const verbose = await lockstep(["train", join(directory, "none.yaml"), "--verbose"]);
  assert.match(verbose.stderr, /^E_FILE_NOT_FOUND: [\s\S]*\n {4}at /);
});

test("workers that die before the run is open end it", async () => {
  // Refused by every worker at its start, and read by nobody else.
  const outcome = await lockstepCommand(
    [
      ...["train", join(directory, "job.yaml"), "--json-logs", "--max_worker_restarts", "0"],
      ...["--output_dir", join(directory, "no-workers")],
    ],
    join(directory, "cache"),
    undefined,
    { ONEDNN_MAX_CPU_ISA: "AVX9" },
  );
  assert.equal(outcome.code, 1, outcome.stderr);
  assert.match(outcome.stderr, /E_WORKERS_EXHAUSTED/);
});

test("coordinator and worker as two commands; both metrics answer during the run", async () => {
  const workers: ChildProcess[] = [];
  const pages = new Map<string, Promise<string>>();
  const fetchMetrics = async (url: string): Promise<string> => (await fetch(url)).text();
  const outcome = await lockstep(
    [
      ...["coordinator", join(directory, "job.yaml"), "--json-logs", "--max_steps", "30"],
      ...["--output_dir", join(directory, "parts")],
    ],
    (event) => {
      const { text } = event as unknown as { text?: string };
      const [, address] = /--coordinator (\S+)/.exec(text ?? "") ?? [];
      const [, metrics] = /metrics (http:\S+)/.exec(text ?? "") ?? [];
      if (metrics !== undefined) pages.set("coordinator", Promise.resolve(metrics));
      if (address === undefined) return;
      const worker = spawn(
        process.execPath,
        [
          ...[join(packageRoot, "bin/lockstep"), "worker", "--coordinator", address, "--use-cpu"],
          ...["--engine-module", join(packageRoot, "dist/tests/support/fake-engine.js")],
        ],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      workers.push(worker);
      createInterface({ input: worker.stdout }).on("line", (line) => {
        const [, url] = /metrics (http:\S+)/.exec(line) ?? [];
        if (url !== undefined) pages.set("worker", fetchMetrics(url));
      });
    },
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  const codes = await Promise.all(
    workers.map(async (worker) =>
      worker.exitCode === null
        ? new Promise<number | null>((resolve) => worker.on("close", resolve))
        : worker.exitCode,
    ),
  );
  assert.deepEqual(codes, [0]);
  assert.match((await pages.get("worker")) ?? "", /lockstep_worker_groups_total/);
  assert.match((await pages.get("coordinator")) ?? "", /^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
  const saved = await readFile(join(directory, "parts", "config.json"), "utf8");
  assert.match(saved, /LlamaForCausalLM/);
});
