import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { assertClose, relativeError } from "#tests/support/compare";
import { lockstepCommand } from "#tests/support/lockstep-command";
import {
  loraFixtureDirectory,
  loraFixtures,
  modelOfLoraFixture,
  readLoraFixture,
} from "#tests/support/lora-fixtures";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { readSlot } from "#tests/support/tiny-llama";

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
