import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { DatasetInfo } from "#lib/data/dataset-info";
import {
  datasetFormats,
  type Example,
  parseExample,
  recogniseFormat,
} from "#lib/data/formats/index";
import { dataExtensions, readRawExamples } from "#lib/data/readers/index";
import { classLabels } from "#lib/objectives/class-labels";

// The examples of docs/data.md are read as the page says.

const page = await readFile(join(packageRoot, "docs/data.md"), "utf8");
/** The fenced blocks of a section of the page. */
const blocksOf = (heading: string): { language: string; text: string }[] => {
  const start = page.indexOf(`\n${heading}\n`);
  assert.ok(start >= 0, heading);
  const rest = page.slice(start + heading.length + 1);
  const end = rest.search(/\n##/);
  const section = end < 0 ? rest : rest.slice(0, end);
  return [...section.matchAll(/```(\w+)\n(.*?)```/gs)].map(([, language = "", text = ""]) => ({
    language,
    text,
  }));
};

function render(example: Example): string {
  const line = (name: string, isLearnt: boolean, text: string): string =>
    `${name}${isLearnt ? "*" : ""}: ${text.replaceAll("\n", "\\n")}`;
  switch (example.kind) {
    case "text":
      return line("text", true, example.text);
    case "completion":
      return `${line("prompt", false, example.prompt)}\n${line("completion", true, example.completion)}`;
    case "conversation":
      return example.messages
        .map(({ role, content }, i) => line(role, example.isLearnt[i] === true, String(content)))
        .join("\n");
    case "pair":
      return [
        ...render(example.chosen).split("\n").slice(0, -1),
        ...[example.chosen, example.rejected].map((side, i) => {
          const last = render(side).split("\n").at(-1) ?? "";
          return `${i === 0 ? "chosen" : "rejected"} ${last}`;
        }),
      ].join("\n");
    case "labelled":
      return [
        line("text", false, example.text),
        ...(example.pair === null ? [] : [line("pair", false, example.pair)]),
        line("label", true, String(example.label)),
      ].join("\n");
  }
}

test("every format has an example that reads as the page says", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-docs-data-"));
  t.after(() => rm(directory, { recursive: true }));
  for (const format of datasetFormats) {
    const [rows, reading, ...more] = blocksOf(`### \`${format}\``);
    assert.ok(rows !== undefined && reading?.language === "text" && more.length === 0, format);
    const file = join(directory, `${format}.${rows.language}`);
    await writeFile(file, rows.text);
    const found: string[] = [];
    for await (const row of readRawExamples(file, new BadExamples("error"))) {
      assert.equal(recogniseFormat(row), format);
      found.push(render(parseExample(row, format, {}, classLabels.read)));
    }
    assert.equal(`${found.join("\n\n")}\n`, reading.text);
  }
});

test("the example of dataset_info.json can be used, and every kind of file is named", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-docs-info-"));
  t.after(() => rm(directory, { recursive: true }));
  const [example] = blocksOf("## dataset_info.json");
  await writeFile(join(directory, "dataset_info.json"), example?.text ?? "");
  const info = await DatasetInfo.open(directory);
  assert.deepEqual(
    info?.names().map((name) => info.get(name).format),
    ["alpaca", "sharegpt"],
  );
  for (const extension of dataExtensions.filter((name) => !name.endsWith(".gz"))) {
    assert.ok(page.includes(`\`${extension}\``), extension);
  }
});
