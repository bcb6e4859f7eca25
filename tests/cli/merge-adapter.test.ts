import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import createEngine from "#lib/tuning/engine";
import { assertClose, relativeError } from "#tests/support/compare";
import { lockstepCommand } from "#tests/support/lockstep-command";
import {
  loraFixtureDirectory,
  loraFixtures,
  modelOfLoraFixture,
  readLoraFixture,
} from "#tests/support/lora-fixtures";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { readSlot, writeSlot } from "#tests/support/tiny-llama";

/** Of tests/reference/make_qlora_fixture.py. */
const losses = JSON.parse(readFileSync("tests/fixtures/qlora/losses.json", "utf8")) as Record<
  string,
  { readonly sgd: readonly number[]; readonly double: boolean }
>;

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-merge-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const merge = (...args: string[]) =>
  lockstepCommand(["merge-adapter", ...args], join(directory, "cache"));

for (const name of loraFixtures) {
  test(`${name}: the merged directory holds W + scale B A, its rows rescaled by DoRA, and saved modules`, async () => {
    const [source, target] = [
      modelFixtureDirectory(modelOfLoraFixture(name)),
      join(directory, name),
    ];
    const { code, stderr } = await merge(loraFixtureDirectory(name), target, "--base", source);
    assert.equal(code, 0, stderr);
    const { merged, job } = await readLoraFixture(name, "fp32");
    const [base, written] = [await ModelWeights.open(source), await ModelWeights.open(target)];
    assert.deepEqual(written.names(), base.names());
    for (const weight of written.names()) {
      const values = await written.readFloat32(weight);
      assertClose(values, readSlot(merged.job.layout, weight, merged.wireBytes), 1e-6, weight);
      const isAdapted = job.parameters.scales[weight.replace(/\.weight$/, "")] !== undefined;
      const isWhole = job.layout.tensors.some((slot) => slot.name === weight);
      const moved = relativeError(values, await base.readFloat32(weight));
      if (isAdapted) assert.ok(moved > 1e-2, `${weight} has moved`);
      else if (!isWhole) assert.equal(moved, 0, weight);
    }
    await base.close();
    await written.close();
  });
}

for (const name of Object.keys(losses)) {
  test(`${name}: merged into weights of 4 bits it has the loss that peft has beside them`, async () => {
    const target = join(directory, `${name}-4bit`);
    const double = losses[name]?.double === true ? ["--bnb-4bit-use-double-quant"] : [];
    const { code, lines, stderr } = await merge(
      ...[loraFixtureDirectory(name), target, "--base", modelFixtureDirectory(name)],
      ...["--load-in-4bit", ...double],
    );
    assert.equal(code, 0, stderr);
    assert.match(lines.join("\n"), /: .* as of 4 bits \(nf4(-double)?\) with the adapter of /);
    const { merged, batch, numTargets } = await readLoraFixture(name, "fp32");
    const written = await ModelWeights.open(target);
    for (const weight of written.names()) {
      const values = await written.readFloat32(weight);
      writeSlot(merged.job.layout, weight, values, merged.wireBytes);
    }
    await written.close();
    const engine = await createEngine(merged.job);
    engine.loadParameters(merged.wireBytes);
    const loss = engine.evaluate(batch).lossSum / numTargets;
    engine.close();
    const expected = losses[name]?.sgd[0] ?? Number.NaN;
    assert.ok(Math.abs(loss / expected - 1) < 1e-5, `${loss} and ${expected}`);
  });
}

test("a base of other sizes, a directory with files, and a missing base are refused", async () => {
  const adapter = loraFixtureDirectory("gpt2");
  const qwen = modelFixtureDirectory("qwen3");
  const other = await merge(adapter, join(directory, "other"), "--base", qwen);
  assert.equal(other.code, 1);
  assert.match(other.stderr, /^E_ADAPTER_TENSOR: .*c_attn is no linear module of the base model/);
  await writeFile(join(directory, "file"), "");
  const full = await merge(adapter, directory, "--base", modelFixtureDirectory("gpt2"));
  assert.match(full.stderr, /^E_DIRECTORY_NOT_EMPTY: /);
  // What adapter_config.json names is not on this machine.
  assert.match(
    (await merge(adapter, join(directory, "none"))).stderr,
    /^E_ADAPTER_BASE: .*There is no model gpt2/,
  );
  assert.equal((await merge(adapter)).code, 2);
});
