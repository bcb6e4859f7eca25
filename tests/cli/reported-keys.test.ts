import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { cpuCount } from "#lib/core/cpu-count";
import { resolveConfig } from "#lib/config/resolve";
import { readConfigFile } from "#lib/config/yaml-file";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { runProgram } from "#tests/support/run-program";

// Situations that people reported about keys of a configuration, in the whole command.

const fake = { engine_module: join(packageRoot, "dist/tests/support/fake-engine.js") };

async function createJob(t: TestContext, name: string): Promise<CaseJob> {
  const job = await createCaseJob(name);
  t.after(job.remove);
  return job;
}

test("a quota of processor time and an affinity decide the threads", async (t) => {
  const job = await createJob(t, "21-cpu-quota");
  const file = await readConfigFile(job.file("job.yaml"));
  const threads = (quota: number): number =>
    resolveConfig(file, new Map(), { cpuCount: cpuCount(quota) }).config.threads_per_worker;
  assert.deepEqual([threads(0.5), threads(1.5)], [1, 1]);
  const bound = ["-c", "0", process.execPath, join(packageRoot, "bin/lockstep"), "config"];
  const { code, stdout, stderr } = await runProgram("taskset", [...bound, job.file("job.yaml")], {
    cwd: job.directory,
  });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^threads_per_worker: 1$/m);
});

test("output_dir: ~/runs/sums is in the home directory, and lockstep.yaml says so", async (t) => {
  const job = await createJob(t, "29-home-in-output-dir");
  const home = job.file("home");
  await mkdir(home);
  const before = await readdir(job.directory);
  const { code, stderr } = await job.lockstep(
    ["train", await job.writeJob(fake), "--json-logs"],
    undefined,
    { HOME: home },
  );
  assert.equal(code, 0, stderr);
  const output = join(home, "runs/sums");
  assert.ok(existsSync(join(output, "model.safetensors")));
  assert.match(
    await readFile(join(output, "lockstep.yaml"), "utf8"),
    /^output_dir: \/.*\/home\/runs\/sums$/m,
  );
  const added = (await readdir(job.directory)).filter((name) => !before.includes(name));
  assert.deepEqual(
    added.sort(),
    ["cache", "changed.yaml"].filter((name) => added.includes(name)),
  );
});

test("do_train: false is refused by every command that trains, before anything is made", async (t) => {
  const job = await createJob(t, "30-evaluation-alone");
  for (const command of ["train", "train-local", "coordinator", "config"]) {
    const { code, stderr } = await job.lockstep([command, job.file("job.yaml")]);
    assert.equal(code, 1, command);
    assert.match(
      stderr,
      /^E_CONFIG_UNSUPPORTED: do_train: false .*job\.yaml:4\): a run always trains/,
    );
  }
  assert.ok(!existsSync(job.file("model-eval")));
});

test("what the refusal of do_train: false says evaluates a model as it is", async (t) => {
  const job = await createJob(t, "30-evaluation-alone");
  const file = await job.writeJob({
    ...{ ...fake, do_train: null, per_device_eval_batch_size: 2, weight_decay: 0.1 },
    ...{ eval_on_start: true, learning_rate: 0, max_steps: 1 },
  });
  const { code, stderr, of } = await job.lockstep(["train", file, "--json-logs"]);
  assert.equal(code, 0, stderr);
  const [first, last] = of("evaluation.completed");
  assert.ok(first !== undefined && first.loss === last?.loss);
  const [before, saved] = [
    await ModelWeights.open(job.modelDirectory),
    await ModelWeights.open(job.file("model-eval")),
  ];
  for (const name of before.names()) {
    assert.deepEqual(await saved.readFloat32(name), await before.readFloat32(name), name);
  }
  for (const each of [before, saved]) await each.close();
});

test("a second round from an adapter is told to merge it, and goes on from what that makes", async (t) => {
  const job = await createJob(t, "31-adapter-as-model");
  const home = job.directory;
  const lockstep = (...args: string[]) => job.lockstep(args, undefined, { HOME: home });
  const lora = { ...fake, use_peft: true, output_dir: "~/lora" };
  const first = await lockstep("train-local", await job.writeJob(lora));
  assert.equal(first.code, 0, first.stderr);
  for (const command of ["train", "train-local", "config"]) {
    const second = { ...fake, model_name_or_path: "~/lora", output_dir: "again" };
    const { code, stderr } = await lockstep(command, await job.writeJob(second));
    assert.match(
      stderr,
      /lora is an adapter \(LoRA\), and training starts from a whole model/,
      command,
    );
    assert.match(stderr, /bin\/lockstep merge-adapter \S+\/lora \S+\/lora-merged/);
    assert.equal(code, command === "config" ? 0 : 1);
  }
  const merging = await lockstep("merge-adapter", "~/lora", "~/lora-merged");
  assert.equal(merging.code, 0, merging.stderr);
  const second = { ...fake, model_name_or_path: "~/lora-merged", output_dir: "again" };
  const { code, stderr } = await lockstep("train-local", await job.writeJob(second));
  assert.equal(code, 0, stderr);
  assert.ok(existsSync(job.file("again/model.safetensors")));
  // A base that is gone is named where it is looked for.
  await rename(job.modelDirectory, job.file("moved"));
  const lost = await lockstep("merge-adapter", "~/lora", "~/other");
  assert.match(lost.stderr, /^E_ADAPTER_BASE: .*--base MODEL|^E_ADAPTER_BASE: /);
});
