import assert from "node:assert/strict";
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { mastersOf, type RunArguments, runJob } from "#tests/support/job-runs";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// float16 in the whole command, with the real engine in real processes, on a model whose gradients overflow with
// the first loss scales.

let job: TinyJob;
before(async () => {
  const groups = { global_batch_size: 8, gradient_groups: 4, max_steps: 6 };
  job = await createTinyJob({ fp16: true, ...groups });
  await amplify(job, loudness);
});
after(() => job.remove());

/** Makes the inputs of the output projection, and with them its gradient, so many times larger. */
const loudness = 16;

/** Multiplies the last norm of a job's model. */
async function amplify({ directory }: TinyJob, factor: number): Promise<void> {
  const name = "model.norm.weight";
  const file = await open(join(directory, "model", "model.safetensors"), "r+");
  try {
    const length = Buffer.alloc(8);
    await file.read(length, 0, 8, 0);
    const headerBytes = Number(length.readBigUInt64LE());
    const text = Buffer.alloc(headerBytes);
    await file.read(text, 0, headerBytes, 8);
    const header = JSON.parse(text.toString()) as Record<
      string,
      { readonly dtype: string; readonly data_offsets: readonly [number, number] }
    >;
    const tensor = header[name];
    assert.ok(tensor?.dtype === "F32", name);
    const [start, end] = tensor.data_offsets;
    const values = new Float32Array((end - start) / 4);
    const bytes = new Uint8Array(values.buffer);
    await file.read(bytes, 0, bytes.length, 8 + headerBytes + start);
    for (const [i, value] of values.entries()) values[i] = value * factor;
    await file.write(bytes, 0, bytes.length, 8 + headerBytes + start);
  } finally {
    await file.close();
  }
}

const run = (...args: RunArguments) => runJob(job, ...args);

/** Steps of one process: scale, and whether the step made an update. */
const stepsOf = ({ lines }: CommandOutcome) =>
  lines.flatMap((line) => {
    const scale = /^step .* loss scale ([\d.]+)/.exec(line)?.[1];
    return scale === undefined ? [] : [{ scale: Number(scale), made: !/no update/.test(line) }];
  });

let known: Promise<{ readonly digest: string; readonly local: CommandOutcome }> | undefined;

/** What one process ends with. */
const ofOneProcess = async () => {
  known ??= run("train-local", "local").then((local) => {
    return { digest: mastersOf(local), local };
  });
  return known;
};

test("steps that overflow are skipped, halve the scale, and are told", async () => {
  const { local } = await ofOneProcess();
  const steps = stepsOf(local);
  assert.equal(steps.length, 6);
  const numSkipped = steps.findIndex(({ made }) => made);
  assert.ok(numSkipped >= 1, local.lines.join("\n"));
  assert.deepEqual(
    steps,
    steps.map((_, step) => ({
      scale: 65_536 / 2 ** Math.min(step, numSkipped),
      made: step >= numSkipped,
    })),
  );
  const lines = local.lines.join("\n");
  assert.match(
    lines,
    /a processor computes float16 products as those of float32, rounded, which ta/,
  );
  assert.match(lines, /float16 products .* takes \d+\.\d\d times the time of float32; fp16: auto/);
});

test("one and two workers end with the weights of one process", async () => {
  const { digest, local } = await ofOneProcess();
  for (const workers of [1, 2]) {
    const cluster = await run("train", `workers-${workers}`, ["--workers", String(workers)]);
    assert.equal(mastersOf(cluster), digest);
    assert.deepEqual(
      cluster.of("step.completed").map(({ lossScale, gradientNorm }) => ({
        scale: lossScale,
        // JSON has no infinities: they are text there.
        made: Number.isFinite(gradientNorm),
      })),
      stepsOf(local),
    );
    assert.ok(cluster.of("worker.joined").every(({ fp16Slowdown }) => fp16Slowdown !== undefined));
  }
});

test("kill -9 of a worker in a step that is skipped, and in one that is not, changes nothing", async () => {
  const { digest } = await ofOneProcess();
  for (const step of [0, 4]) {
    const pids = new Map<string, number>();
    let killed = "";
    const broken = await run("train", `killed-${step}`, [], (event) => {
      if (event.type === "worker.joined") pids.set(event.workerId, event.pid);
      if (event.type === "group.leased" && event.step === step && killed === "") {
        killed = event.workerId;
        process.kill(pids.get(killed) as number, "SIGKILL");
      }
    });
    assert.equal(mastersOf(broken), digest);
    assert.ok(broken.of("worker.lost").some(({ workerId }) => workerId === killed));
  }
});

test("a run that goes on from a checkpoint keeps its scale and ends with the same weights", async () => {
  const { digest, local } = await ofOneProcess();
  const saving = ["--save-strategy", "steps", "--save-steps", "1"];
  assert.equal(mastersOf(await run("train", "saved", saving)), digest);
  const checkpoint = join(job.directory, "saved", "checkpoint-2");
  const from = ["--resume-from-checkpoint", checkpoint];
  const resumed = await run("train", "resumed", [...from, "--reducer-shards", "3"]);
  assert.equal(mastersOf(resumed), digest);
  assert.deepEqual(
    resumed.of("step.completed").map(({ lossScale }) => lossScale),
    stepsOf(local)
      .map(({ scale }) => scale)
      .slice(2),
  );
  for (const other of [["--no-fp16", "--bf16"], ["--no-fp16"]]) {
    const refused = await run("train", "other", [...from, ...other]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /E_RESUME_MISMATCH.*fp16 was true and is now false/);
  }
});

/** The engine, some of whose steps, counted from 0, have no finite gradient. */
async function writeSkippingEngine(skipped: readonly number[]): Promise<string> {
  const file = join(job.directory, "engine.mjs");
  const engine = new URL("../../lib/tuning/engine.js", import.meta.url).href;
  await writeFile(
    file,
    `import create from ${JSON.stringify(engine)};
const skipped = ${JSON.stringify(skipped)};
let numGroups = 0;
export default async (job) => {
  const engine = await create(job);
  const accumulate = engine.accumulate.bind(engine);
  engine.accumulate = (batch, gradScale, first, wireBytes) => {
    const sum = accumulate(batch, gradScale, first, wireBytes);
    if (wireBytes === undefined) return sum;
    if (skipped.includes(Math.floor(numGroups++ / 4))) wireBytes.set([0, 0, 128, 127]);
    return sum;
  };
  return engine;
};
`,
  );
  return file;
}

test("through its overflows it trains as float32 does that leaves out the same steps", async () => {
  const lossesOf = ({ lines, code, stderr }: CommandOutcome): number[] => {
    assert.equal(code, 0, stderr);
    return lines
      .flatMap((line) => /(?:^step .* |^validation )loss ([\d.]+)/.exec(line)?.[1] ?? [])
      .map(Number);
  };
  const longer = ["--max-steps", "40"];
  const local = await run("train-local", "fp16", longer);
  const narrow = lossesOf(local);
  const skipped = stepsOf(local).flatMap(({ made }, step) => (made ? [] : [step]));
  assert.ok(skipped.length > 1);
  const engine = ["--no-fp16", "--engine-module", await writeSkippingEngine(skipped)];
  const wide = lossesOf(await run("train-local", "fp32", [...longer, ...engine]));
  assert.equal(narrow.length, 42);
  assert.ok((narrow.at(-1) as number) < 0.25 * (narrow[0] as number), "it learns");
  for (const [index, loss] of narrow.entries()) {
    const expected = wide[index] as number;
    const both = `${loss} in float16, ${expected} in float32, at ${index}`;
    assert.ok(Math.abs(loss / expected - 1) < 0.01, both);
  }
});

test("a run that overflows at its beginning ends within 1 % of the loss of float32", async (t) => {
  const groups = { global_batch_size: 8, gradient_groups: 4, max_steps: 200 };
  const longer = await createTinyJob({ ...groups, lr_scheduler_type: "linear" });
  t.after(longer.remove);
  await amplify(longer, loudness / 4);
  const ends: number[] = [];
  for (const precision of ["--fp16", "--no-bf16"]) {
    const { code, stderr, lines } = await runJob(longer, "train-local", precision, [precision]);
    assert.equal(code, 0, stderr);
    const numSkipped = lines.filter((line) => line.includes("no update")).length;
    assert.equal(numSkipped > 0, precision === "--fp16");
    const losses = lines.flatMap((line) => /^validation loss ([\d.]+)/.exec(line)?.[1] ?? []);
    ends.push(Number(losses.at(-1)));
  }
  const [narrow = Number.NaN, wide = Number.NaN] = ends;
  assert.ok(Math.abs(narrow / wide - 1) < 0.01, `${narrow} in float16, ${wide} in float32`);
});
