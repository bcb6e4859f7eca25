import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { after, before, test } from "node:test";
import { mergeAdapterCommand } from "#cli/merge-adapter";
import { findableName, findModel } from "#run/model-place";
import { openModel } from "#run/open-model";
import { prepareRun } from "#run/prepare";
import { verifyModel } from "#cli/verify-model";
import { loadConfig } from "#lib/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { relativeError } from "#tests/support/compare";
import {
  loraFixtureDirectory,
  loraFixtures,
  modelOfLoraFixture,
} from "#tests/support/lora-fixtures";
import { methodFixture } from "#tests/support/method-steps";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { copyFixtureWithTokenizer } from "#tests/support/number-tokenizer";
import { runProgram } from "#tests/support/run-program";

// An adapter's directory where a model's is asked for: the same as merging first.

let directory = "";
/** A name that no directory beside the tests' own has: a relative base is looked for there first. */
let baseName = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-adapter-"));
  baseName = `${basename(directory)}-base`;
  for (const name of loraFixtures) {
    await copyFixtureWithTokenizer(modelOfLoraFixture(name), join(directory, name, baseName));
    await copyAdapter(name, join(directory, name, "adapter"), `../${baseName}`);
    const merging = [join(directory, name, "adapter"), join(directory, name, "merged")];
    assert.equal(await mergeAdapterCommand([...merging, "--dtype", "float32"]), 0);
  }
});
after(() => rm(directory, { recursive: true, force: true }));

async function copyAdapter(name: string, target: string, base: string | null): Promise<void> {
  await cp(loraFixtureDirectory(name), target, { recursive: true });
  const file = join(target, "adapter_config.json");
  const config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  await writeFile(file, JSON.stringify({ ...config, base_model_name_or_path: base }));
}

const codeOf = (error: unknown): string => (isLockstepError(error) ? error.code : String(error));

for (const name of loraFixtures) {
  test(`${name}: its weights have the bits of the merged model's, and are not the base's`, async () => {
    const adapted = await openModel(join(directory, name, "adapter"));
    const merged = await openModel(join(directory, name, "merged"));
    const base = await openModel(join(directory, name, baseName));
    let numMoved = 0;
    for (const { name: weight } of adapted.model.weights) {
      const values = await adapted.readWeight(weight);
      assert.deepEqual(values, await merged.readWeight(weight), weight);
      if (relativeError(values, await base.readWeight(weight)) > 1e-2) numMoved++;
    }
    assert.ok(numMoved > 1);
    for (const each of [adapted, merged, base]) await each.close();
  });
}

test("verify-model and generate compute what they compute for the merged model", async () => {
  const reports: string[] = [];
  for (const kind of ["adapter", "merged"]) {
    const { passed, report } = await verifyModel({
      model: join(directory, "bert-seqcls", kind),
      caseDirectory: modelFixtureDirectory("bert-seqcls"),
      ...{ tolerance: 1e-4, showAll: true },
    });
    assert.equal(passed, false, "the case is the base's");
    reports.push(report.slice(report.indexOf("\n")));
  }
  assert.equal(reports[0], reports[1]);
  const continued = async (kind: string): Promise<unknown[]> => {
    const place = join(directory, "llama-gqa-untied", kind);
    const args = ["generate", place, "--prompt", "5 9 2", "--max-new-tokens", "8", "--json"];
    const program = join(packageRoot, "bin/lockstep");
    const { code, stdout, stderr } = await runProgram(process.execPath, [program, ...args]);
    assert.equal(code, 0, stderr);
    return (JSON.parse(stdout) as { tokens: unknown[] }).tokens;
  };
  assert.deepEqual(await continued("adapter"), await continued("merged"));
});

test("the base is found by name, beside the adapter or as --base; the tokenizer is the adapter's own", async () => {
  const base = join(directory, "gpt2", baseName);
  const other = join(directory, "named");
  await copyAdapter("gpt2", other, relative(process.cwd(), base));
  assert.equal((await findModel(other)).modelDirectory, base);
  assert.equal((await findModel(other)).tokenizerDirectory, base);
  await cp(join(base, "tokenizer.json"), join(other, "tokenizer.json"));
  assert.equal((await findModel(other)).tokenizerDirectory, other);
  const merged = join(directory, "gpt2", "merged");
  assert.equal((await findModel(other, { base: merged })).modelDirectory, merged);

  const lost = join(directory, "lost");
  await copyAdapter("gpt2", lost, "no/such-model");
  await assert.rejects(findModel(lost), (error) => {
    assert.equal(codeOf(error), "E_ADAPTER_BASE");
    assert.ok(isLockstepError(error) && error.hint.includes("--base MODEL"));
    assert.ok(error.message.includes(join(lost, "no/such-model")), error.message);
    return true;
  });
  assert.equal((await findModel(lost, { base })).modelDirectory, base);
  const nameless = join(directory, "nameless");
  await copyAdapter("gpt2", nameless, null);
  await assert.rejects(findModel(nameless), /E_ADAPTER_BASE|names no base model/);
  const stacked = join(directory, "stacked");
  await copyAdapter("gpt2", stacked, other);
  await assert.rejects(findModel(stacked), /is an adapter itself \(LoRA\); merge that one/);
  await assert.rejects(findModel(base, { base: merged }), /is no adapter/);
  const both = join(directory, "both");
  await cp(base, both, { recursive: true });
  await cp(other, both, { recursive: true });
  await assert.rejects(findModel(both), /holds a model \(model\.safetensors\) and an adapter/);
});

test("a run refuses to start from an adapter and says the command that makes a model of it", async () => {
  const folder = join(directory, "it's here");
  await mkdir(folder);
  const adapter = join(folder, "adapter");
  await copyAdapter("gpt2", adapter, join(directory, "gpt2", baseName));
  await mkdir(`${adapter}-merged`);
  const { config } = await loadConfig([
    ...["--model_name_or_path", adapter, "--dataset", "sotu", "--output_dir", join(folder, "out")],
  ]);
  let message = "";
  await assert.rejects(prepareRun(config), (error) => {
    assert.equal(codeOf(error), "E_MODEL_IS_ADAPTER");
    message = error instanceof Error ? error.message : "";
    return true;
  });
  const command = /This makes one: (bin\/lockstep .*)$/.exec(message)?.[1] ?? "";
  const typed = await runProgram("sh", ["-c", command], { cwd: packageRoot });
  assert.equal(typed.code, 0, typed.stderr);
  await (await openModel(`${adapter}-merged-2`)).close();
});

test("of what cannot be merged no command is advised, and merging it says why", async () => {
  const configOf = async (...flags: string[]) =>
    (await loadConfig([...flags, "--dataset", "sotu", "--output_dir", join(directory, "out")]))
      .config;
  const loha = join(directory, "loha");
  await copyAdapter("gpt2", loha, null);
  await writeFile(join(loha, "adapter_config.json"), JSON.stringify({ peft_type: "LOHA" }));
  const [prompt, bottleneck] = ["prompt-gpt2", "bottleneck-gpt2"].map(methodFixture) as [
    string,
    string,
  ];
  for (const [adapter, what] of [
    [prompt, /\(virtual tokens \(prompt tuning\)\).*None can be made of it: no weight of a model/],
    [bottleneck, /\(bottleneck adapters\).*None can be made of it/],
    [loha, /\(of a kind that is not read here\).*None can be made of it: .* peft_type LOHA/],
  ] as const) {
    const config = await configOf("--model_name_or_path", adapter);
    await assert.rejects(prepareRun(config), { code: "E_MODEL_IS_ADAPTER", message: what });
  }
  const base = join(directory, "gpt2", baseName);
  for (const adapter of [prompt, bottleneck]) {
    await assert.rejects(mergeAdapterCommand([adapter, join(directory, "none"), "--base", base]), {
      code: "E_ADAPTER_UNMERGEABLE",
      message: /they are neither merged nor exported/,
    });
    const flags = ["--model_name_or_path", base, "--use_peft", "--adapter_name_or_path", adapter];
    await assert.rejects(prepareRun(await configOf(...flags)), {
      code: "E_CONFIG_UNSUPPORTED",
      message: /adapter_name_or_path.*LoRA's and DoRA's adapters alone are trained further/,
    });
  }
  await copyAdapter("gpt2", join(directory, "upon"), prompt);
  await assert.rejects(findModel(join(directory, "upon")), {
    code: "E_ADAPTER_BASE",
    message: /is an adapter itself \(virtual tokens .*\), and cannot be merged/,
  });
});

test("an adapter is not written into the directory of its base model", async () => {
  const base = join(directory, "gpt2", baseName);
  const { config } = await loadConfig([
    ...["--model_name_or_path", base, "--dataset", "sotu", "--output_dir", `${base}/`],
    "--use_peft",
  ]);
  await assert.rejects(prepareRun(config), /E_CONFIG_CONFLICT|output_dir and model_name_or_path/);
});

test("an adapter calls its base by the hub's name, or by an absolute path", () => {
  const cache = join(directory, "cache");
  const before = process.env.LOCKSTEP_CACHE;
  process.env.LOCKSTEP_CACHE = cache;
  try {
    const model = join(directory, "gpt2", baseName);
    assert.equal(findableName(relative(process.cwd(), model), model), model);
    assert.equal(findableName(`${model}/`, model), model);
    const snapshot = join(directory, "hub/models--org--name/snapshots/0123");
    assert.equal(findableName("org/name", snapshot), "org/name");
    const named = join(cache, "models", "tiny");
    assert.equal(findableName("tiny", named), named);
    assert.equal(findableName("org/tiny", join(cache, "models/org/tiny")), "org/tiny");
  } finally {
    if (before === undefined) delete process.env.LOCKSTEP_CACHE;
    else process.env.LOCKSTEP_CACHE = before;
  }
});
