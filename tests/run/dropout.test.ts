import assert from "node:assert/strict";
import { test } from "node:test";
import { loadConfig, parseFlags, type ResolvedConfig, resolveConfig } from "#lib/config/index";
import { runDropout } from "#run/dropout";
import { prepareRun } from "#run/prepare";
import { failure } from "#tests/support/failure";
import { createPairJob } from "#tests/support/pair-job";

type Asked = ResolvedConfig["dropout"];

const gpt2 = { model_type: "gpt2", attn_pdrop: 0.2, embd_pdrop: 0 };
const dropoutOf = (
  dropout: Asked,
  modelConfig: Readonly<Record<string, unknown>> = gpt2,
  {
    isClassifier = false,
    adapterRate = 0,
    comparesPairs = false,
    disable = null as boolean | null,
  } = {},
) => {
  const config = { dropout, disable_dropout: disable, neftune_noise_alpha: null };
  const run = { isClassifier, adapterRate, comparesPairs };
  const { rates, lines } = runDropout(config, modelConfig, run);
  return { rates, lines };
};

test("NEFTune's noise is told, with what its magnitude depends on", () => {
  const of = (alpha: number | null) =>
    runDropout(
      { dropout: 0, disable_dropout: null, neftune_noise_alpha: alpha },
      { model_type: "llama" },
      { isClassifier: false, adapterRate: 0, comparesPairs: false },
    );
  for (const none of [null, 0]) {
    assert.deepEqual(of(none), { rates: {}, noiseAlpha: undefined, lines: [] });
  }
  const { noiseAlpha, lines } = of(5);
  assert.equal(noiseAlpha, 5);
  assert.match(lines.join(), /^noise: .* up to 5 \/ sqrt\(L D\) in training.*neftune_noise_alpha/);
});

test("a run drops what the model's config.json says, and says so", () => {
  assert.deepEqual(dropoutOf(null), {
    rates: { attention: 0.2, residual: 0.1 },
    lines: ["dropout: attention 0.2, residual 0.1 (the model's config.json)"],
  });
  assert.deepEqual(dropoutOf(null, { model_type: "llama" }), { rates: {}, lines: [] });
});

test("the key has rates in their place: of all kinds that the model has, or of some", () => {
  assert.deepEqual(dropoutOf(0), { rates: {}, lines: ["dropout: none (the key dropout)"] });
  assert.deepEqual(dropoutOf(0, { model_type: "llama" }).lines, []);
  const everywhere = { embeddings: 0.3, attention: 0.3, residual: 0.3 };
  assert.deepEqual(dropoutOf(0.3).rates, everywhere);
  assert.deepEqual(dropoutOf(0.3, { model_type: "llama" }).rates, { attention: 0.3 });
  const bert = dropoutOf(0.3, { model_type: "bert" }, { isClassifier: true });
  assert.deepEqual(bert.rates, { ...everywhere, classifier: 0.3 });
  assert.deepEqual(dropoutOf({ residual: 0.4, attention: 0 }), {
    rates: { residual: 0.4 },
    lines: ["dropout: residual 0.4 (the key dropout)"],
  });
  assert.deepEqual(dropoutOf({ residual: 0.4 }).lines, [
    "dropout: attention 0.2 (the model's config.json); residual 0.4 (the key dropout)",
  ]);
});

test("adapters drop their inputs by a rate of their own", () => {
  assert.deepEqual(dropoutOf(0, gpt2, { adapterRate: 0.05 }), {
    rates: { adapters: 0.05 },
    lines: ["dropout: adapters 0.05 (lora_dropout)"],
  });
});

test("on pairs nothing is dropped but what the key dropout says, unless disable_dropout: false asks for all", () => {
  const all = { attention: 0.2, residual: 0.1, adapters: 0.05 };
  const pairs = { adapterRate: 0.05, comparesPairs: true };
  const words =
    "attention 0.2, residual 0.1 (the model's config.json); adapters 0.05 (lora_dropout)";
  assert.deepEqual(dropoutOf(null, gpt2, pairs), {
    rates: {},
    lines: [
      `dropout: none; not ${words}: the run learns from pairs, and disable_dropout: false is not set`,
    ],
  });
  assert.deepEqual(dropoutOf(null, gpt2, { ...pairs, disable: false }), {
    rates: all,
    lines: [`dropout: ${words}`],
  });
  assert.deepEqual(dropoutOf({ residual: 0.4 }, gpt2, pairs), {
    rates: { residual: 0.4 },
    lines: [
      "dropout: residual 0.4 (the key dropout); not attention 0.2 (the model's config.json); adapters 0.05 (lora_dropout): the run learns from pairs, and disable_dropout: false is not set",
    ],
  });
  assert.deepEqual(dropoutOf(null, { model_type: "llama" }, { comparesPairs: true }).lines, []);
});

test("disable_dropout: true drops nothing of any run, of adapters neither", () => {
  for (const comparesPairs of [false, true]) {
    const run = { adapterRate: 0.05, comparesPairs, disable: true };
    const { rates, lines } = dropoutOf(null, gpt2, run);
    assert.deepEqual(rates, {});
    assert.match(lines.join(), /^dropout: none; not .*lora_dropout\): disable_dropout: true$/);
  }
  const keys = ["--model_name_or_path", "m", "--dataset", "d", "--disable_dropout", "true"];
  const resolved = (...more: string[]) =>
    resolveConfig(new Map(), parseFlags([...keys, ...more], () => false).values, { cpuCount: 2 });
  assert.equal(resolved("--dropout", "0").config.disable_dropout, true);
  assert.match(
    failure(() => resolved("--dropout", "{attention: 0.1}")),
    /E_CONFIG_CONFLICT: .*disable_dropout and dropout/,
  );
});

test("a run that has pairs anywhere drops nothing: the job that workers get says so", async (t) => {
  const rates = { use_peft: true, lora_dropout: 0.25 };
  const entry = { path: "PAIRS", columns: { prompt: "prompt", completion: "chosen" } };
  const answers = { dataset: [entry], eval_strategy: "no", eval_dataset: null };
  const mixed = {
    dataset: [
      { ...entry, task: "b" },
      { path: "PAIRS", task: "a" },
    ],
  };
  for (const [settings, expected] of [
    [{ objective: "dpo", ...rates }, undefined],
    [{ objective: "orpo", ...rates }, undefined],
    [{ objective: "reward", ...rates }, undefined],
    [{ ...answers, ...mixed, ...rates }, undefined],
    [{ objective: "dpo", disable_dropout: false, ...rates }, { adapters: 0.25 }],
    [{ ...answers, ...rates }, { adapters: 0.25 }],
  ] as const) {
    const job = await createPairJob(settings);
    t.after(job.remove);
    const prepared = await prepareRun((await loadConfig([job.configFile])).config);
    await prepared.close();
    const what = JSON.stringify(settings);
    assert.deepEqual(prepared.job.dropout?.rates, expected, what);
    assert.match((prepared.started.dataLines ?? []).join("\n"), /^dropout: .*adapters 0.25/m, what);
  }
});

test("a kind that the model does not have is refused by name, unless it is 0", () => {
  assert.throws(
    () => dropoutOf({ classifier: 0.1 }),
    /dropout: classifier 0.1 is not supported.*embeddings, attention, residual alone/,
  );
  assert.throws(
    () => dropoutOf({ classifier: 0.1 }, { model_type: "bert" }),
    /classifier 0.1/,
    "an encoder that gets no head for classes",
  );
  assert.deepEqual(dropoutOf({ classifier: 0 }).rates, { attention: 0.2, residual: 0.1 });
});

test("values that are no rates, and kinds that there are not, are refused where they are given", () => {
  const resolved = (value: string): Asked => {
    const { values } = parseFlags(
      ["--model_name_or_path", "m", "--dataset", "d", "--dropout", value],
      () => false,
    );
    return resolveConfig(new Map(), values, { cpuCount: 2 }).config.dropout;
  };
  assert.equal(resolved("0"), 0);
  assert.deepEqual(resolved("{residual: 0.1, attention: 0}"), { residual: 0.1, attention: 0 });
  for (const value of ["1", "-0.1", "{hidden: 0.1}", "{residual: 1}", "some"]) {
    assert.throws(
      () => resolved(value),
      /dropout(\.residual)? must be a number of at least 0 and less than 1, or a mapping of embeddings/,
      value,
    );
  }
});
