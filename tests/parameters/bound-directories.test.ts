import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import { adapter } from "#lib/parameters/adapter";
import { prompt } from "#lib/parameters/prompt";
import { findAdapter } from "#run/model-place";
import { openModel } from "#run/open-model";
import { openModelWeights } from "#run/model-weights";
import { modelWeights } from "#run/starting-model";
import { choiceOptions as options, startingFixture } from "#tests/support/method-steps";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";

type Fixture = Awaited<ReturnType<typeof startingFixture>>;

const none = { prompt_tuning_init_text: null, non_linearity: null } as const;
const kinds = {
  prompt: (model: Fixture) =>
    prompt.choose({ ...none, num_virtual_tokens: 2, prompt_tuning_init: "RANDOM" }, model, options),
  adapter: (model: Fixture) =>
    adapter.choose({ ...none, adapter_config: "seq_bn", reduction_factor: 4 }, model, options),
};

for (const [kind, choose] of Object.entries(kinds)) {
  test(`what ${kind} saves opens over the base that it was trained on, and over no other`, async (t) => {
    const base = modelFixtureDirectory("gpt2");
    const fixture = await startingFixture("gpt2");
    const weights = await openModelWeights(base);
    t.after(() => Promise.all([fixture.close(), weights.close()]));
    const own = await weightsSha256(weights, modelWeights(weights, fixture.modelConfig));
    for (const [digest, isOwn] of [
      [own, true],
      [own.replace(/^../, "zz"), false],
    ] as const) {
      const directory = await mkdtemp(join(tmpdir(), "lockstep-bound-"));
      t.after(() => rm(directory, { recursive: true, force: true }));
      const { save } = choose({ ...fixture, digest: async () => digest });
      await save(directory, {
        ...{ dtype: "float32", maxShardBytes: 1e9 },
        valuesOf: ({ size }) => new Float32Array(size),
      });
      const opening = openModel(await findAdapter(directory, { base }));
      if (isOwn) await (await opening).close();
      else {
        await assert.rejects(opening, {
          code: "E_ADAPTER_BASE",
          message: /has other weights than the one that it was trained on/,
        });
      }
    }
  });
}
