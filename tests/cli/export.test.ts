import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { ModelWeights, writeModelDirectory } from "#lib/checkpoint/index";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
} from "#lib/core/bf16";
import { packageRoot } from "#lib/core/paths";
import { checkDifference } from "#run/merge-difference";
import { claimOutputDirectory } from "#run/output-directory";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { loraFixtureDirectory } from "#tests/support/lora-fixtures";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { writeTinyChatModel } from "#tests/support/named-models";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-export-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const path = (...parts: string[]): string => join(directory, ...parts);
const lockstep = (...args: string[]) => lockstepCommand(args, path("cache"));
const exported = (model: string, target: string, ...args: string[]) =>
  lockstep("export", model, "--output-dir", target, ...args);

/** A type's rounding of float32, there and back. */
const rounded = {
  float32: (values: Float32Array) => values,
  bfloat16: (values: Float32Array) =>
    bfloat16ToFloat32(float32ToBfloat16(values), new Float32Array(values.length)),
  float16: (values: Float32Array) =>
    float16ToFloat32(float32ToFloat16(values), new Float32Array(values.length)),
};

test("a model in another type: rounded once, in shards, with its configuration and tokenizer", async () => {
  const source = path("chat");
  await writeTinyChatModel(source);
  for (const dtype of ["float32", "bfloat16", "float16"] as const) {
    const target = path(dtype);
    const size = ["--max-shard-size", "20KB"];
    const { code, stderr, lines } = await exported(source, target, "--dtype", dtype, ...size);
    assert.equal(code, 0, stderr);
    assert.match(lines.join("\n"), new RegExp(`^Wrote .*million parameters \\(${dtype}\\)`));
    const names = await readdir(target);
    assert.ok(names.filter((name) => /^model-\d+-of-\d+\.safetensors$/.test(name)).length > 1);
    const config: unknown = JSON.parse(await readFile(join(target, "config.json"), "utf8"));
    assert.equal((config as Record<string, unknown>)["dtype"], dtype);
    for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
      if (!existsSync(join(source, name))) continue;
      assert.deepEqual(await readFile(join(target, name)), await readFile(join(source, name)));
    }
    const [before, written] = [await ModelWeights.open(source), await ModelWeights.open(target)];
    assert.equal(written.dtype(), dtype);
    assert.deepEqual(written.names(), before.names());
    for (const name of before.names()) {
      const expected = rounded[dtype](await before.readFloat32(name));
      assert.deepEqual(await written.readFloat32(name), expected, name);
    }
    await before.close();
    await written.close();
  }
});

test("a merged adapter is compared with the adapter beside its base", async () => {
  const base = ["--base", modelFixtureDirectory("gpt2")];
  const adapter = loraFixtureDirectory("gpt2");
  for (const name of ["gpt2", "gpt2-dora"]) {
    const { code, stderr, lines } = await exported(
      join(packageRoot, "tests/fixtures/lora", name),
      path(`merged-${name}`),
      ...[...base, "--dtype", "float32"],
    );
    assert.equal(code, 0, stderr);
    const [, difference = "", largest = ""] =
      /differ from the adapter's by up to (\S+); the largest is (\S+)\.$/.exec(lines.join("\n")) ??
      [];
    assert.ok(Number(difference) < 1e-5 * Number(largest), lines.join("\n"));
  }
  const strict = [...base, "--dtype", "bfloat16", "--max-logit-difference", "1e-6"];
  const refused = await exported(adapter, path("refused"), ...strict);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /E_EXPORT_DIFFERENCE: .* in bfloat16 is not the adapter's/);
  assert.ok(!existsSync(path("refused")), "nothing is left");
  const unseen = ["--dtype", "bfloat16", "--max-logit-difference", "none"];
  const uncompared = await exported(adapter, path("uncompared"), ...base, ...unseen);
  assert.equal(uncompared.code, 0, uncompared.stderr);
  assert.doesNotMatch(uncompared.lines.join("\n"), /differ/);
});

test("export, merge-adapter and import-gguf claim their directory as a run does", async () => {
  const model = modelFixtureDirectory("gpt2");
  const target = path("claimed");
  const commands = [
    ["export", model, "--output-dir", target],
    ["merge-adapter", loraFixtureDirectory("gpt2"), target, "--base", model],
    ["import-gguf", join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), target],
  ];
  const claim = await claimOutputDirectory(target);
  for (const command of commands) {
    const { code, stderr } = await lockstep(...command);
    assert.equal(code, 1);
    assert.match(stderr, /E_OUTPUT_DIR_IN_USE/, command[0]);
  }
  await claim.release();
  assert.deepEqual(await readdir(target), [claimFolder]);
  // A directory that was claimed, and holds nothing, is as good as a new one.
  const [command = []] = commands;
  assert.equal((await lockstep(...command)).code, 0);
  for (const again of commands) {
    assert.match((await lockstep(...again)).stderr, /E_DIRECTORY_NOT_EMPTY/, again[0]);
  }
});

test("weights that are not those of config.json are refused, and numbers that are none are said", async () => {
  const source = path("checked");
  await writeTinyChatModel(source);
  const config = JSON.parse(await readFile(join(source, "config.json"), "utf8")) as object;
  const other = path("other-shape");
  await cp(source, other, { recursive: true });
  await writeFile(join(other, "config.json"), JSON.stringify({ ...config, intermediate_size: 48 }));
  for (const format of ["safetensors", "gguf"]) {
    const { stderr } = await exported(other, path(`shape-${format}`), "--format", format);
    assert.match(stderr, /^E_MODEL_TENSOR_MISSING: .*mlp\S+ of shape \[48, /);
    assert.ok(!existsSync(path(`shape-${format}`)));
  }
  const broken = path("broken");
  await mkdir(broken);
  const weights = await ModelWeights.open(source);
  const tensors = weights.names().map((name) => ({
    ...{ name, shape: weights.info(name).shape },
    read: async () => {
      const values = await weights.readFloat32(name);
      if (/norm/.test(name)) values[1] = name.includes("layers.0") ? Number.NaN : -Infinity;
      return values;
    },
  }));
  await writeModelDirectory(broken, { sourceDir: source, tensors, dtype: "float32" });
  await weights.close();
  await writeFile(join(broken, "modules.json"), "[]");
  const { code, stderr } = await exported(broken, path("broken-out"), "--dtype", "bf16");
  assert.match(stderr, /^warning: sentence-transformers' modules\.json, .* are not copied$/m);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^warning: model\S+ and 2 other weights hold numbers that are not finite/m);
});

test("a merge that is wrong before its weights are rounded does not hide behind the rounding", () => {
  const allowed = { difference: 0.09, unrounded: 9e-5, logit: 1 };
  const [bound, dtype] = [undefined, "bfloat16"] as const;
  checkDifference(allowed, { bound, dtype });
  for (const [changed, type] of [
    [{ unrounded: 2e-4 }, "float32"],
    [{ unrounded: Infinity, logit: Number.NaN }, "float32 cannot be compared"],
    [{ difference: 0.11 }, "bfloat16"],
  ] as const) {
    assert.throws(() => checkDifference({ ...allowed, ...changed }, { bound, dtype }), {
      code: "E_EXPORT_DIFFERENCE",
      message: new RegExp(`merged model in ${type}`),
    });
  }
  checkDifference({ ...allowed, unrounded: 2e-4 }, { bound: 0.5, dtype });
});

test("an adapter is compared where its tokenizer knows nothing of the prompts", async () => {
  const base = path("wordless");
  await cp(modelFixtureDirectory("gpt2"), base, { recursive: true });
  const model = { type: "WordLevel", vocab: { other: 0, "<unk>": 1 }, unk_token: "<unk>" };
  const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const tokenizer = { version: "1.0", truncation: null, padding: null, added_tokens: [], ...parts };
  await writeFile(join(base, "tokenizer.json"), JSON.stringify({ ...tokenizer, model }));
  const { code, stderr, lines } = await exported(
    loraFixtureDirectory("gpt2"),
    path("wordless-out"),
    ...["--base", base, "--dtype", "f32"],
  );
  assert.equal(code, 0, stderr);
  assert.match(lines.join("\n"), /by up to \S+e-\d+; the largest is [1-9]/);
});

test("a signal amid an export leaves nothing of it, in a new directory and in an empty one", async () => {
  await mkdir(path("empty"));
  for (const [name, signal, code] of [
    ["stopped/new", "SIGINT", 130],
    ["empty", "SIGTERM", 143],
  ] as const) {
    await mkdir(path("stopped"), { recursive: true });
    const args = [
      ...["export", loraFixtureDirectory("gpt2"), "--base", modelFixtureDirectory("gpt2")],
      ...["--output-dir", path(name)],
    ];
    const child = spawn(process.execPath, [join(packageRoot, "bin/lockstep"), ...args]);
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const isWriting = async () =>
      (await readdir(path(name)).catch(() => [])).some((file) => file.startsWith(".files.tmp-"));
    const ended = new Promise((resolve) => child.on("close", resolve));
    while (child.exitCode === null && !(await isWriting())) await setImmediate();
    child.kill(signal);
    assert.equal(await ended, code, stderr);
    assert.match(stderr, /Stopped: nothing was written into/);
  }
  assert.deepEqual(await readdir(path("stopped")), []);
  assert.deepEqual(await readdir(path("empty")), [claimFolder]);
});

test("types have the names that other programs give them", async () => {
  const model = modelFixtureDirectory("gpt2");
  for (const [i, name] of ["bf16", "FP16", "f32"].entries()) {
    const { code, stderr, lines } = await exported(model, path(`spelt-${i}`), "--dtype", name);
    assert.equal(code, 0, stderr);
    assert.match(lines.join(), [/\(bfloat16\)/, /\(float16\)/, /\(float32\)/][i] as RegExp);
  }
});

test("what no weight of a base holds is not merged, and has its form already", async () => {
  for (const [name, what] of [
    ["prompt-gpt2", /holds virtual tokens .*Use the directory as it is/s],
    ["bottleneck-gpt2", /holds bottleneck adapters.*Use the directory as it is/s],
  ] as const) {
    const adapter = join(packageRoot, "tests/fixtures/methods", name);
    const base = ["--base", modelFixtureDirectory("gpt2")];
    const asked = [
      await exported(adapter, path("unmergeable"), ...base),
      await exported(adapter, path("unmergeable"), ...base, "--format", "gguf"),
      await lockstep("merge-adapter", adapter, path("unmergeable"), ...base),
    ];
    for (const { code, stderr } of asked) {
      assert.equal(code, 1);
      assert.match(stderr, /^E_ADAPTER_UNMERGEABLE: /);
      assert.match(stderr, what);
    }
    assert.ok(!existsSync(path("unmergeable")));
  }
});

test("what an export cannot do is refused by name, and a directory of somebody's own gets no claim", async () => {
  const model = modelFixtureDirectory("gpt2");
  await mkdir(path("own", "things"), { recursive: true });
  assert.match((await exported(model, path("own"))).stderr, /^E_DIRECTORY_NOT_EMPTY/);
  assert.deepEqual(await readdir(path("own")), ["things"]);
  const usage: [string[], RegExp][] = [
    [[model], /--output-dir names a new directory/],
    [[model, "other", "--output-dir", path("x")], /it takes one model/],
    [[model, "--output-dir", path("x"), "--dtype", "int3"], /--dtype is one of/],
    [[model, "--output-dir", path("x"), "--format", "pickle"], /--format is one of/],
    [[model, "--output-dir", path("x"), "--max-shard-size", "5XB"], /--max-shard-size/],
    [[model, "--output-dir", path("x"), "--max-logit-difference", "-1"], /--max-logit-difference/],
    [[model, "--output-dir", path("x"), "--max-logit-difference", "1e999"], /from 0, or none/],
    [[model, "--output-dir", path("x"), "--max-logit-difference", "1"], /is for adapters/],
    [[model, "--output-dir", path("x"), "--load-in-4bit"], /is for adapters/],
    [
      [model, "--output-dir", path("x"), "--dtype", "Q8_0"],
      /is of GGUF files, and safetensors are written/,
    ],
    [[model, "--output-dir", ""], /new directory is empty/],
    [[model, "--output-dri", "x"], /no option --output-dri; did you mean --output-dir\?$/m],
    [[model, "--outfile", "x"], /there is no option --outfile\.$/m],
    [[model, "--output-dir"], /--output-dir takes a value\.$/m],
    [[model, "--base", "--dtype"], /begins with a dash is given as --base=VALUE\.$/m],
    [[model, "--load-in-4bit=1"], /'--load-in-4bit' does not take an argument\.$/m],
  ];
  for (const [args, problem] of usage) {
    const { code, stderr } = await lockstep("export", ...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, problem);
  }
  assert.match((await exported(model, path("x"), "--base", model)).stderr, /is no adapter/);
  assert.ok(!existsSync(path("x")));
});
