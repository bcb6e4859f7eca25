import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { readTexts } from "#lib/data/index";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { caseError, prepareCase } from "#tests/support/case-run";

let job: CaseJob;
const row = (name: string): string => `{"prompt": "${name} ", "completion": "yes"}\n`;
before(async () => {
  job = await createCaseJob("11-fewer-rows-than-a-step");
  await writeFile(job.file("rows.jsonl"), row("a") + row("b"));
  execFileSync("mkfifo", [job.file("pipe.jsonl"), job.file("pipe.yaml")]);
});
after(() => job.remove());

test("a pipe or a device is refused wherever a file is named, and nothing waits for it", async () => {
  const pipe = /^E_FILE_UNREADABLE: .*it is a pipe/;
  assert.match(await caseError(job, "pipe.jsonl"), pipe);
  const validation = { eval_dataset: job.file("pipe.jsonl") };
  assert.match(await caseError(job, "rows.jsonl", validation), pipe);
  assert.match(await caseError(job, "rows.jsonl", { dataset: "/dev/zero" }), /it is a device/);
  const asConfig = await job.lockstep(["train-local", job.file("pipe.yaml")]);
  assert.equal(asConfig.code, 1);
  assert.match(asConfig.stderr, /E_FILE_UNREADABLE: The configuration .*pipe\.yaml .*it is a pipe/);
  for (const file of [job.file("pipe.jsonl"), "/dev/zero", job.file("pipe.yaml")]) {
    await assert.rejects(readTexts(file, {}).next(), { code: "E_FILE_UNREADABLE" });
  }
});

for (const name of ["config.json", "tokenizer.json", "model.safetensors", "dataset_info.json"]) {
  test(`a pipe in the place of ${name} is refused`, async () => {
    const other = await createCaseJob("11-fewer-rows-than-a-step");
    const place =
      name === "dataset_info.json" ? other.file(name) : `${other.modelDirectory}/${name}`;
    execFileSync("rm", ["-f", place]);
    execFileSync("mkfifo", [place]);
    try {
      assert.match(await caseError(other, "five.jsonl"), /^E_FILE_UNREADABLE: .*it is a pipe/);
    } finally {
      await other.remove();
    }
  });
}

test("a snapshot of a hub trains on its train split and validates on what is asked for", async () => {
  await mkdir(job.file("snapshot/data"), { recursive: true });
  for (const [split, text] of [
    ["train", row("a") + row("b")],
    ["test", row("c")],
    ["validation", row("d")],
  ] as const) {
    await writeFile(job.file(`snapshot/data/${split}-00000-of-00001.jsonl`), text);
  }
  await writeFile(job.file("snapshot/README.md"), "---\nlicense: mit\n---\n# Rows\n");
  const run = await prepareCase(job, "snapshot", { eval_dataset: job.file("snapshot") });
  assert.deepEqual(
    [run.data.trainReport.numExamples, run.data.validationReport?.numExamples],
    [2, 1],
  );
  const lines = (run.started.dataLines ?? []).join("\n");
  assert.match(lines, /trains on its split train \(1 file\), and not on test \(1 file\)/);
  assert.match(lines, /validates on its split validation/);
  await run.close();
  const entry = [{ path: job.file("snapshot"), split: "train[:1]" }];
  const part = await prepareCase(job, "snapshot", { dataset: entry });
  assert.equal(part.data.trainReport.numExamples, 1);
  await part.close();
});
