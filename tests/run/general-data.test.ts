import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { identityDifferences } from "#lib/checkpoint/run-identity";
import { integerField } from "#lib/core/batch";
import { gatherBatch } from "#lib/data/rows";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

const line = (value: object): string => `${JSON.stringify(value)}\n`;
const pairs = (count: number, word: string): string =>
  Array.from({ length: count }, (_, i) =>
    line({ prompt: `${word} ${i}?`, completion: ` It is ${i}.` }),
  ).join("");
const text = (word: string): string =>
  Array.from({ length: 40 }, (_, i) => `${word} ${i} of the world.\n`).join("");

let job: CaseJob;
before(async () => {
  job = await createCaseJob(undefined);
  await writeFile(job.file("own.jsonl"), pairs(20, "contract"));
  await writeFile(job.file("general.txt"), text("law"));
  await writeFile(job.file("other.txt"), text("sea"));
  await writeFile(
    job.file("labels.jsonl"),
    line({ text: "a good one of them all", label: "yes" }) +
      line({ text: "a bad one of them all", label: "no" }),
  );
});
after(() => job.remove());

const prepare = (settings: Readonly<Record<string, unknown>> = {}) =>
  prepareCase(job, "own.jsonl", {
    ...{ max_length: 32, max_steps: 2, per_device_train_batch_size: 2 },
    general_dataset: job.file("general.txt"),
    ...settings,
  });

test("general rows have both sides, the run's row length and the run's fields of a batch", async () => {
  for (const packing of [null, true]) {
    const run = await prepare({ packing });
    const { general, dataset } = run.data;
    assert.ok(general?.dataset.validation !== undefined);
    const { rows } = general.dataset.train;
    const own = dataset.train.rows;
    assert.equal(rows.sequenceLength, own.sequenceLength);
    assert.deepEqual(rows.inputs, own.inputs);
    assert.deepEqual(
      general.validation.map(({ fields }) => Object.keys(fields)),
      general.validation.map(() => run.job.batchFields.map(({ name }) => name)),
    );
    const batch = gatherBatch(rows, [0], 1);
    if (packing === true) {
      // A text that is cut into rows is one segment, from position 0 on.
      assert.deepEqual(
        [...integerField(batch, "segments")],
        Array.from({ length: 32 }, () => 1),
      );
      assert.deepEqual(
        [...integerField(batch, "positions")],
        Array.from({ length: 32 }, (_, i) => i),
      );
    }
    assert.match(run.data.dataLines.join("\n"), /general training: .*\ngeneral validation: /);
    await run.close();
  }
});

test("chats beside texts that fill rows get a row each, whatever packing says", async () => {
  const run = await prepare({
    ...{ dataset: job.file("general.txt"), general_dataset: job.file("own.jsonl") },
    packing: true,
  });
  assert.equal(run.data.dataset.layout, "wrapped");
  assert.equal(run.data.general?.dataset.layout, "padded");
  assert.deepEqual(run.data.general?.dataset.train.rows.inputs, run.data.dataset.train.rows.inputs);
  await run.close();
});

test("other general rows make another run, and so do none; the same rows of another file do not", async () => {
  await writeFile(job.file("copy.txt"), text("law"));
  const digests = async (general: string | null) => {
    const name = general === null ? null : job.file(general);
    const run = await prepare({ general_dataset: name });
    const data = await run.data.dataDigests();
    await run.close();
    return data;
  };
  const base = { settings: {}, dataSettings: {}, base: { weights: "", config: {} } };
  const differences = async (one: string | null, other: string | null): Promise<string> =>
    identityDifferences(
      { ...base, data: await digests(one) },
      { ...base, data: await digests(other) },
    ).join("; ");
  assert.equal(await differences("general.txt", "copy.txt"), "");
  assert.match(
    await differences("general.txt", "other.txt"),
    /^the general training data had SHA-256 [0-9a-f]{12}\.\.\. and now .*; the general validation data/,
  );
  assert.match(await differences("general.txt", null), /general training data .* and now none/);
  assert.equal(await differences(null, null), "");
});

test("what general data cannot be is refused by the names of its keys", async () => {
  const error = (settings: Readonly<Record<string, unknown>>, data = "own.jsonl") =>
    caseError(job, data, { general_dataset: job.file("general.txt"), ...settings });
  assert.match(
    await error({ general_dataset: job.file("labels.jsonl") }),
    /E_CONFIG_CONFLICT: The values of general_dataset and objective .*these have a label/,
  );
  assert.match(
    await error({ validation_split: 0 }, "labels.jsonl"),
    /E_CONFIG_CONFLICT: The values of general_dataset and objective .*this run learns single_label/,
  );
  assert.match(
    await error({ general_dataset: null, general_eval_dataset: job.file("other.txt") }),
    /E_CONFIG_CONFLICT: The values of general_eval_dataset and general_dataset/,
  );
  assert.match(await error({ general_dataset: "absent.txt" }), /absent\.txt/);
});

test("the texts of labelled rows are general text where an entry says so; no held-out row is told of", async () => {
  const run = await prepare({
    ...{ general_dataset: [{ path: job.file("labels.jsonl"), type: "completion" }] },
    validation_split: 0,
  });
  assert.deepEqual(run.data.general?.validation, []);
  assert.match(run.data.dataLines.join("\n"), /no general row is kept for validation/);
  await run.close();
});

test("where the run's own rows have weights and lengths, general ones do: each counts 1", async () => {
  const weighted = { path: job.file("weighted.jsonl"), columns: { weight: "w" } };
  await writeFile(weighted.path, pairs(20, "contract").replaceAll("}\n", ',"w":0.5}\n'));
  const run = await prepare({ dataset: [weighted], neftune_noise_alpha: 5 });
  const { general, dataset } = run.data;
  assert.ok(general !== undefined && dataset.isWeighted && !general.dataset.isWeighted);
  for (const { fields } of general.validation) {
    assert.deepEqual(
      Object.keys(fields),
      run.job.batchFields.map(({ name }) => name),
    );
    assert.deepEqual(
      [...(fields["weights"] ?? [])],
      Array.from(fields["targets"] ?? [], (target) => (target < 0 ? 0 : 1)),
    );
  }
  await run.close();
  const weightedGeneral = { path: weighted.path, columns: { weight: "w" } };
  const error = await caseError(job, "own.jsonl", {
    general_dataset: [weightedGeneral],
  });
  assert.match(String(error), /general_dataset and dataset.*general rows have weights/s);
});

test("the Fisher information is measured on rows that count alike, whatever weights they have", async () => {
  const rows = Array.from({ length: 20 }, (_, i) =>
    line({ prompt: `contract ${i}?`, completion: ` It is ${i}.`, w: i % 2 === 0 ? 100 : 0.5 }),
  ).join("");
  const weighted = { path: job.file("uneven.jsonl"), columns: { weight: "w" } };
  await writeFile(weighted.path, rows);
  const chats = Array.from({ length: 20 }, (_, i) =>
    line({
      messages: [
        { role: "user", content: `${i}?` },
        { role: "assistant", content: `${i}`, weight: 3 },
        { role: "user", content: "Sure?" },
        { role: "assistant", content: "Yes." },
      ],
    }),
  ).join("");
  await writeFile(job.file("chats.jsonl"), chats);
  for (const general of [weighted, { path: job.file("chats.jsonl") }]) {
    const settings = { dataset: [weighted], general_dataset: [general], max_length: 128 };
    const run = await prepare({ ...settings, packing: false, ewc_lambda: 1 });
    const { fisher } = run;
    assert.ok(fisher !== undefined && run.data.general?.dataset.isWeighted === true);
    const batches = fisher.microBatches(0, 0);
    assert.ok(batches.length > 1);
    for (const { fields } of batches) {
      const targets = integerField({ numRows: 1, fields }, "targets");
      assert.ok(targets.some((target) => target >= 0));
      assert.deepEqual(
        [...(fields["weights"] ?? [])],
        Array.from(targets, (t) => +(t >= 0)),
      );
    }
    // Evaluations weigh them still.
    const [evaluated] = run.data.general.validation;
    assert.ok(evaluated?.fields["weights"]?.some((weight) => weight > 0 && weight !== 1));
    await run.close();
  }
});

test("a key for one of a run's tasks is none of the general rows' business", async () => {
  await writeFile(
    job.file("prefs.jsonl"),
    Array.from({ length: 20 }, (_, i) =>
      line({ prompt: `${i}?`, chosen: ` It is ${i}.`, rejected: " No." }),
    ).join(""),
  );
  await writeFile(
    job.file("labelled.jsonl"),
    Array.from({ length: 20 }, (_, i) =>
      line({ text: `text ${i}`, label: i % 2 === 0 ? "yes" : "no" }),
    ).join(""),
  );
  const chats = { path: job.file("own.jsonl"), task: "chats" };
  for (const [own, key] of [
    [{ path: job.file("prefs.jsonl"), task: "prefs" }, { beta: 0.3 }],
    [{ path: job.file("labelled.jsonl"), task: "labels" }, { class_weights: { yes: 2, no: 1 } }],
  ] as const) {
    for (const use of [{}, { replay_weight: 0.5 }, { ewc_lambda: 1 }]) {
      const run = await prepare({ dataset: [own, chats], ...key, ...use });
      assert.equal(run.data.general?.objective.kind, "causal_lm");
      assert.deepEqual(run.data.general.objective.settings, undefined);
      await run.close();
    }
  }
  // Where nothing reads it, it is refused still.
  assert.match(
    await caseError(job, "own.jsonl", { general_dataset: job.file("general.txt"), beta: 0.3 }),
    /E_CONFIG_CONFLICT.*beta and objective/,
  );
});
