import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { markTokens, renderConversation } from "#lib/data/encode-example";
import { parseExample, recogniseFormat } from "#lib/data/formats/index";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { type RawExample, readRawExamples } from "#lib/data/readers/index";

// Rows of conversations with what transformers makes of them: tests/reference/make_conversation_fixture.py.

interface Case {
  readonly template: string;
  readonly form: "object" | "string" | "arrow" | "plain";
  /** A line of JSON; rows of the form "arrow" are those of the table. */
  readonly row?: string;
  readonly examples: readonly {
    readonly text: string;
    /** Base64 of 16-bit numbers. */
    readonly ids: string;
    /** Ranges of tokens that are learnt, half-open. */
    readonly learnt: readonly (readonly [number, number])[];
  }[];
}

const fixtures = join(packageRoot, "tests/fixtures");
const folder = join(fixtures, "conversations");
const { cases, date } = JSON.parse(await readFile(join(folder, "expected.json"), "utf8")) as {
  readonly cases: readonly Case[];
  readonly date: string;
};
const directory = await mkdtemp(join(tmpdir(), "lockstep-conversations-"));
after(() => rm(directory, { recursive: true }));

async function tokenizerOf(template: string): Promise<Tokenizer> {
  const place = join(directory, template);
  await mkdir(place);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await copyFile(join(fixtures, "tok", name), join(place, name));
  }
  const source = (name: string): string => join(folder, "templates", `${name}.jinja`);
  if (template === "hermes") {
    await copyFile(source("hermes-default"), join(place, "chat_template.jinja"));
    await mkdir(join(place, "additional_chat_templates"));
    await copyFile(
      source("hermes-tool_use"),
      join(place, "additional_chat_templates", "tool_use.jinja"),
    );
  } else await copyFile(source(template), join(place, "chat_template.jinja"));
  return loadTokenizer(place, place, { date });
}

const tokenizers = new Map<string, Tokenizer>();

async function rowsOf(file: string): Promise<RawExample[]> {
  const rows: RawExample[] = [];
  for await (const row of readRawExamples(file, new BadExamples("error"))) rows.push(row);
  return rows;
}

const lines = cases.flatMap(({ row }) => row ?? []);
const asLines = join(directory, "rows.jsonl");
await writeFile(asLines, lines.join("\n"));
const asArray = join(directory, "rows.json");
await writeFile(asArray, `[${lines.join(",\n")}]`);

for (const file of [asLines, asArray]) {
  const kind = file === asLines ? "lines of JSON" : "an array of JSON";
  test(`text, ids and learnt tokens equal those of transformers: ${kind} and a table`, async () => {
    const written = (await rowsOf(file)).values();
    const ofTable = (await rowsOf(join(folder, "arrow.parquet"))).values();
    const forms = new Map<string, number>();
    for (const { template, form, examples } of cases) {
      const row = (form === "arrow" ? ofTable : written).next().value;
      assert.ok(row !== undefined);
      const tokenizer = tokenizers.get(template) ?? (await tokenizerOf(template));
      tokenizers.set(template, tokenizer);
      const example = parseExample(row, recogniseFormat(row));
      assert.equal(example.kind, "conversation");
      const rendered = renderConversation(example, tokenizer, row.place);
      assert.deepEqual(
        rendered.map(({ text }) => text),
        examples.map(({ text }) => text),
        `${template}, ${form}, ${row.place}`,
      );
      const encoded = await tokenizer.encodeMarked(rendered);
      for (const [i, expected] of examples.entries()) {
        const [text, tokens] = [rendered[i], encoded[i]];
        assert.ok(text !== undefined && tokens !== undefined);
        const placed = { ...text, place: row.place, kind: "conversation" as const };
        const { tokens: marked } = markTokens(placed, tokens, tokenizer);
        const bytes = Buffer.from(expected.ids, "base64");
        const ids = Array.from({ length: bytes.length / 2 }, (_, j) => bytes.readUInt16LE(2 * j));
        const isLearnt = (j: number): boolean =>
          expected.learnt.some(([start, end]) => j >= start && j < end);
        assert.deepEqual(
          [...marked],
          ids.map((id, j) => (isLearnt(j) ? id : ~id)),
          `${template}, ${form}, ${row.place}`,
        );
      }
      forms.set(form, (forms.get(form) ?? 0) + 1);
    }
    assert.ok(cases.length >= 200);
    for (const form of ["object", "string", "arrow", "plain"]) {
      assert.ok((forms.get(form) ?? 0) >= 40, form);
    }
  });
}
