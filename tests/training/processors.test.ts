import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { processorKind, readProcessor } from "#lib/core/processor";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// The real engine with what people have in their environments: the same bits, or a refusal by name.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({ max_steps: 3 });
});
after(() => job.remove());

type Environment = Readonly<Record<string, string>>;
const lockstep = (
  args: readonly string[],
  environment: Environment = {},
  onEvent?: Parameters<typeof lockstepCommand>[2],
) => lockstepCommand(args, join(job.directory, "cache"), onEvent, environment);

const local = (name: string, args: readonly string[], environment?: Environment) =>
  lockstep(
    ["train-local", job.configFile, "--output-dir", join(job.directory, name), ...args],
    environment,
  );

const digestOf = ({ lines, stderr }: CommandOutcome): string => {
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(lines.join("\n"))?.[1];
  assert.ok(digest !== undefined, stderr + lines.join("\n"));
  return digest;
};
const lossesOf = ({ lines }: CommandOutcome): number[] =>
  lines.flatMap((line) => /^step .* loss ([\d.]+)/.exec(line)?.[1] ?? []).map(Number);

interface ClusterOutcome {
  readonly coordinator: CommandOutcome;
  /** By their order. */
  readonly workers: readonly CommandOutcome[];
}

/** A coordinator, and workers with environments of their own: the first, and once it is in, the others. */
async function cluster(
  name: string,
  args: readonly string[],
  environments: readonly Environment[],
): Promise<ClusterOutcome> {
  const workers: Promise<CommandOutcome>[] = [];
  let address = "";
  const startNext = (): void => {
    const environment = environments[workers.length];
    if (environment === undefined || address === "") return;
    const options = ["--use-cpu", "--metrics-port", "null", "--reconnect-timeout-ms", "2000"];
    const worker = lockstep(["worker", "--coordinator", address, ...options], environment);
    workers.push(worker);
  };
  const coordinator = await lockstep(
    [
      ...["coordinator", job.configFile, "--json-logs"],
      ...["--output-dir", join(job.directory, name), "--gradient-groups", "2", ...args],
    ],
    {},
    (event) => {
      const [, found] = /--coordinator (\S+)/.exec(JSON.stringify(event).replace('"', " ")) ?? [];
      if (found !== undefined && address === "") {
        address = found.replace(/["\\}].*$/, "");
        startNext();
      }
      // Long before the first worker's programs are compiled.
      if (event.type === "worker.joined") while (workers.length < environments.length) startNext();
    },
  );
  return { coordinator, workers: await Promise.all(workers) };
}

const completed = ({ coordinator }: ClusterOutcome): string => {
  assert.equal(coordinator.code, 0, coordinator.stderr);
  return coordinator.of("run.completed")[0]?.mastersSha256 ?? "";
};

test("bfloat16 is computed on processors without it too, close to that of others", async () => {
  const expected = lossesOf(await local("free", ["--bf16"]));
  for (const ceiling of ["AVX2", "SSE41"]) {
    const limited = await local(`bf16-${ceiling}`, ["--bf16"], { ONEDNN_MAX_CPU_ISA: ceiling });
    assert.equal(limited.code, 0, limited.stderr);
    assert.match(limited.lines.join("\n"), /bfloat16 products take \d+\.\d\d times the time of/);
    const found = lossesOf(limited);
    assert.equal(found.length, 3);
    for (const [index, loss] of found.entries()) {
      assert.ok(
        Math.abs(loss - (expected[index] as number)) < 5e-3,
        `${found.join(", ")} and ${expected.join(", ")}`,
      );
    }
  }
});

test("float16 is computed on processors with AVX, with the same losses, and refused by name without", async () => {
  const [expected, limited, older] = [
    await local("fp16", ["--fp16"]),
    await local("fp16-AVX", ["--fp16"], { ONEDNN_MAX_CPU_ISA: "AVX" }),
    await local("fp16-SSE41", ["--fp16"], { ONEDNN_MAX_CPU_ISA: "SSE41" }),
  ];
  assert.equal(limited.code, 0, limited.stderr);
  const [found, free] = [lossesOf(limited), lossesOf(expected)];
  assert.equal(found.length, 3);
  for (const [index, loss] of found.entries()) {
    const both = `${found.join(", ")} and ${free.join(", ")}`;
    assert.ok(Math.abs(loss - (free[index] as number)) < 1e-3, both);
  }
  assert.equal(older.code, 1);
  assert.match(
    older.stderr,
    /E_CONFIG_UNSUPPORTED: fp16: true is not supported: this processor has no AVX/,
  );
});

test("generate computes in bfloat16 on processors without it, and says what that costs", async () => {
  const args = ["generate", join(job.directory, "model"), "--prompt", "the state", "--bf16"];
  const typed = [...args, "--max-new-tokens", "3", "--temperature", "0", "--json"];
  const odd = { ONEDNN_MAX_CPU_ISA: "AVX2", TF_ENABLE_ONEDNN_OPTS: "0" };
  const limited = await lockstep(typed, odd);
  assert.equal(limited.code, 0, limited.stderr);
  assert.match(limited.stderr, /warning: this processor has no instructions for bfloat16, whose/);
  assert.match(limited.stderr, /warning: TF_ENABLE_ONEDNN_OPTS=0 of the environment has no effect/);
  const [found] = limited.lines.map((line) => JSON.parse(line) as { tokens: number[] });
  assert.equal(found?.tokens.length, 3);
});

test("a worker's environment changes no bit of the result, and says what it left out", async () => {
  // Long enough for the others to come before it is over. What a ceiling costs was measured above.
  const args = ["--bf16", "--max-steps", "60"];
  const expected = digestOf(await local("plain", [...args, "--gradient-groups", "2"]));
  const odd = {
    TF_ENABLE_ONEDNN_OPTS: "0",
    XLA_FLAGS: "--xla_cpu_enable_fast_math=true",
    ONEDNN_DEFAULT_FPMATH_MODE: "ANY",
    TF_XLA_FLAGS: "--tf_xla_auto_jit=2",
  };
  // A ceiling makes a worker compute other bits, so the third is refused.
  const outcome = await cluster("odd", args, [odd, {}, { ONEDNN_MAX_CPU_ISA: "SSE41" }]);
  assert.equal(completed(outcome), expected);
  const [first, second, third] = outcome.workers as [
    CommandOutcome,
    CommandOutcome,
    CommandOutcome,
  ];
  for (const variable of Object.keys(odd)) {
    assert.match(first.lines.join("\n"), new RegExp(`warning: ${variable}=.* has no effect`));
  }
  assert.doesNotMatch(second.lines.join("\n"), /has no effect/);
  assert.equal(outcome.coordinator.of("worker.joined").length, 2);
  assert.equal(third.code, 1);
  assert.match(third.stderr, /E_DEVICE_KIND_MISMATCH/);
  assert.match(third.stderr, /ONEDNN_MAX_CPU_ISA=SSE41/);
});

test("bf16: auto is what the first worker's device says, in the run and its checkpoints", async () => {
  const saving = ["--bf16", "auto", "--save-strategy", "steps", "--save-steps", "2"];
  const slow = { ONEDNN_MAX_CPU_ISA: "AVX2" };
  const outcome = await cluster("auto", saving, [slow, {}]);
  completed(outcome);
  const lines = outcome.coordinator.of("run.started")[0]?.dataLines ?? [];
  const kind = processorKind(readProcessor({ ...process.env, ...slow }));
  const isLimited = kind !== processorKind(readProcessor());
  assert.ok(
    lines.some(
      (line) => line.startsWith("precision: float32 (bf16: auto; ") && line.includes(kind),
    ),
    lines.join("\n"),
  );
  if (isLimited) assert.match(outcome.workers[1]?.stderr ?? "", /E_DEVICE_KIND_MISMATCH/);
  const directory = join(job.directory, "auto");
  for (const file of ["lockstep.yaml", "checkpoint-2/lockstep/config.yaml"]) {
    const saved = await readFile(join(directory, file), "utf8");
    assert.match(saved, /^bf16: false$/m);
    assert.match(saved, /^wire_dtype: float32$/m);
  }
  // Going on, the checkpoint decides, whatever this machine would choose.
  const checkpoint = join(directory, "checkpoint-2");
  // Its device was another kind, which a run that is to keep its bits does not go on from.
  const args = [
    ...["--bf16", "auto", "--resume-from-checkpoint", checkpoint, "--gradient-groups", "2"],
    ...["--deterministic", "false"],
  ];
  const resumed = await lockstep([
    ...["train", job.configFile, "--json-logs", "--output-dir", join(job.directory, "resumed")],
    ...args,
  ]);
  assert.equal(resumed.code, 0, resumed.stderr);
  const told = resumed.of("run.started")[0]?.dataLines?.join("\n") ?? "";
  assert.match(told, /precision: float32 \(bf16: auto; as in .*checkpoint-2\)/);
});

test("bf16: auto of one process is this processor's", async () => {
  const free = await local("auto-local", ["--bf16", "auto"]);
  assert.equal(free.code, 0, free.stderr);
  const limited = await local("auto-slow", ["--bf16", "auto"], { ONEDNN_MAX_CPU_ISA: "AVX2" });
  assert.match(limited.lines.join("\n"), /^precision: float32 \(bf16: auto;/m);
  const fp32 = await local("fp32-slow", ["--no-bf16"], { ONEDNN_MAX_CPU_ISA: "AVX2" });
  assert.equal(digestOf(limited), digestOf(fp32));
});
