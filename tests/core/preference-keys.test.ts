import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFlags } from "#lib/config/index";
import { isSwitchKey, isTextKey, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { failure } from "#tests/support/failure";

/** A minimal job with these keys. */
const resolve = (keys: Readonly<Record<string, unknown>>) => {
  const text = JSON.stringify({ model_name_or_path: "m", dataset: "d.jsonl", ...keys });
  const flags = parseFlags([], isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(text, "job.yaml"), flags.values, { cpuCount: 8 }).config;
};

const learnt = (keys: Readonly<Record<string, unknown>>): unknown[] => {
  const { objective, loss_type: lossType, beta, label_smoothing: smoothing } = resolve(keys);
  return [objective, lossType, beta, smoothing];
};

test("preferences of LLaMA-Factory and axolotl are read under TRL's names", () => {
  const factory = { finetuning_type: "full", template: "llama3" };
  assert.deepEqual(learnt({ ...factory, stage: "dpo" }), ["dpo", null, 0.1, 0]);
  assert.deepEqual(
    learnt({
      ...{ ...factory, stage: "dpo", pref_beta: 0.2, pref_loss: "sigmoid" },
      dpo_label_smoothing: 0.1,
    }),
    ["dpo", "sigmoid", 0.2, 0.1],
  );
  const theirs = { ...factory, stage: "dpo", pref_loss: "orpo" };
  assert.deepEqual(learnt(theirs), ["orpo", null, 0.1, 0]);
  // Its loss of the chosen sequence is of the answer, TRL's and axolotl's of the prompt too.
  assert.equal(resolve(theirs).orpo_nll_tokens, "answer");
  assert.equal(resolve({ ...theirs, orpo_nll_tokens: "sequence" }).orpo_nll_tokens, "sequence");
  for (const keys of [{ rl: "orpo" }, { objective: "orpo" }]) {
    assert.equal(resolve(keys).orpo_nll_tokens, "sequence");
  }
  assert.equal(learnt({ ...factory, stage: "rm" })[0], "reward");
  // A preference's loss says nothing of an SFT, as there.
  assert.deepEqual(learnt({ ...factory, stage: "sft", pref_loss: "ipo" }), ["auto", null, 0.1, 0]);
  assert.deepEqual(learnt({ rl: "ipo", rl_beta: 0.3 }), ["dpo", "ipo", 0.3, 0]);
  assert.deepEqual(learnt({ rl: "orpo", orpo_alpha: 0.2 }), ["orpo", null, 0.2, 0]);
  assert.equal(learnt({ reward_model: true })[0], "reward");
  assert.equal(learnt({ rl: "dpo", objective: "dpo" })[0], "dpo");
});

test("LLaMA-Factory's reward models drop what its other stages drop, its DPO nothing, as TRL", () => {
  const off = (keys: Readonly<Record<string, unknown>>) => resolve(keys).disable_dropout;
  assert.equal(off({ stage: "rm", lora_dropout: 0.1 }), false);
  assert.equal(off({ stage: "rm", disable_dropout: true }), true);
  assert.equal(off({ stage: "dpo", lora_dropout: 0.1 }), null);
  for (const asked of [true, false]) {
    assert.equal(off({ objective: "dpo", disable_dropout: asked }), asked);
  }
});

test("what is not here is refused by its name", () => {
  for (const [keys, refusal] of [
    [{ stage: "dpo", pref_loss: "simpo" }, /E_CONFIG_UNSUPPORTED: pref_loss: "simpo"/],
    [{ rl: "grpo" }, /E_CONFIG_UNSUPPORTED: rl: "grpo".*dpo, ipo, orpo/],
    [{ stage: "dpo", pref_ftx: 0.1 }, /E_CONFIG_UNSUPPORTED: pref_ftx: 0\.1.*orpo/],
    [{ stage: "dpo", ref_model: "m" }, /E_CONFIG_UNSUPPORTED: ref_model: "m".*without an adapter/],
    [{ ref_adapter_name: "ref" }, /E_CONFIG_UNSUPPORTED: ref_adapter_name: .*without an adapter/],
    [{ precompute_ref_log_probs: true }, /E_CONFIG_UNSUPPORTED: precompute_ref_log_probs: true/],
    [{ rl: "dpo", objective: "orpo" }, /E_CONFIG_CONFLICT: .*rl and objective/],
    [{ objective: "dpo", loss_type: "kto" }, /E_CONFIG_INVALID: .*loss_type/],
    [{ objective: "dpo", beta: 0 }, /E_CONFIG_INVALID: .*beta/],
    // float32 has no such numbers: the loss would be constant, or not finite.
    [{ objective: "dpo", beta: 1e-300 }, /E_CONFIG_INVALID: .*beta/],
    [{ objective: "orpo", beta: 1e300 }, /E_CONFIG_INVALID: .*beta/],
    [{ objective: "reward", center_rewards_coefficient: 1e60 }, /E_CONFIG_INVALID: .*center/],
    [{ objective: "dpo", label_smoothing: 0.5 }, /E_CONFIG_INVALID: .*label_smoothing/],
  ] as const) {
    assert.match(
      failure(() => resolve(keys)),
      refusal,
    );
  }
});
