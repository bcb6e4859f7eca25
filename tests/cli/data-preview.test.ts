import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { rowLines, marksFor, type PreviewStyle } from "#cli/preview-lines";
import { shortened, visible } from "#cli/visible-text";
import { colorPalette, displayWidth, plainPalette } from "#lib/core/terminal-text";
import { packageRoot } from "#lib/core/paths";
import type { PreviewRow } from "#lib/data/index";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { runProgram } from "#tests/support/run-program";
import { importsOf, packageOf, readSource, staticClosure } from "#tests/support/source-files";

let job: CaseJob;
before(async () => {
  job = await createCaseJob(undefined);
});
after(() => job.remove());

const chat = (question: string, answer: string): string =>
  JSON.stringify({
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
  });

const defaults = {
  ...{ model_name_or_path: "model", output_dir: "runs/out", max_length: 64, workers: 1 },
  ...{ validation_split: 0, per_device_train_batch_size: 1, gradient_accumulation_steps: 1 },
};

async function preview(
  settings: Readonly<Record<string, unknown>>,
  ...args: string[]
): Promise<CommandOutcome & { readonly text: string }> {
  const config = await job.writeJob({ ...defaults, ...settings });
  const outcome = await job.lockstep(["data", "preview", config, ...args]);
  return { ...outcome, text: outcome.lines.join("\n") };
}

test("a chat on a pipe: its text with what is learnt between marks, its tokens, and the figures", async () => {
  await writeFile(job.file("chats.jsonl"), [chat("2+2?", "4"), chat("hi", "<b>")].join("\n"));
  const { code, stderr, lines, text } = await preview({ dataset: "chats.jsonl" }, "--rows", "1");
  assert.deepEqual([code, stderr], [0, ""]);
  // A byte b is the token 4 + b; <|im_start|> is 1, <|im_end|> 2.
  assert.deepEqual(lines.slice(0, 5), [
    "training row 1 of 2: 26 tokens, 2 learnt, 38 of padding",
    "  chats.jsonl:1 messages, learnt between ⟦ and ⟧",
    "  │ <|im_start|>user",
    "  │ 2+2?<|im_end|>",
    "  │ <|im_start|>assistant",
  ]);
  assert.deepEqual(lines.slice(5, 9), [
    "  │ ⟦4<|im_end|>⟧",
    "  │ ",
    "    token   id  learnt  text",
    '        0    1          "<|im_start|>"',
  ]);
  assert.ok(lines.includes('       23   56  yes     "4"'), text);
  assert.ok(lines.includes('       24    2  yes     "<|im_end|>"'), text);
  assert.ok(lines.includes('       25   14          "\\n"'), text);
  assert.match(text, /\nRead\n {2}chats\.jsonl {2}messages {2}2 rows\n/);
  assert.match(text, /\n {2}training: 2 examples a row each, 2 rows, 52 tokens, 6 supervised\n/);
  assert.match(text, /\n {2}learnt: 12 % of the training rows' tokens\n/);
  assert.match(text, /\nTokens of an example\n {2}shortest 26, mean 26, 50 % up to 26, /);
  assert.equal(existsSync(job.file("runs")), false, "nothing is written");
});

test("--json gives input_ids and labels as transformers has them, and figures", async () => {
  await writeFile(
    job.file("pairs.jsonl"),
    [
      JSON.stringify({ prompt: "ab", completion: "é🙂" }),
      JSON.stringify({ prompt: "long", completion: "x".repeat(80) }),
    ].join("\n"),
  );
  const { code, lines } = await preview({ dataset: "pairs.jsonl" }, "--json");
  assert.equal(code, 0);
  const objects = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const bytes = [...Buffer.from("é🙂")].map((byte) => byte + 4);
  const [first, second, summary] = objects;
  assert.deepEqual(first, {
    ...{ type: "row", split: "train", row: 1 },
    examples: [
      {
        ...{ place: "pairs.jsonl:1", format: "prompt-completion", first_token: 0, num_tokens: 9 },
        ...{ tokens_before: 0, tokens_cut: 0, cut_text: "" },
      },
    ],
    text: "abé🙂<|im_end|>",
    tokens: ["a", "b", "é", "", "🙂", "", "", "", "<|im_end|>"],
    input_ids: [101, 102, ...bytes, 2],
    labels: [-100, -100, ...bytes, 2],
    num_padding: 55,
  });
  const { examples } = second as { examples: { tokens_cut: number; cut_text: string }[] };
  assert.deepEqual(
    [examples[0]?.tokens_cut, examples[0]?.cut_text],
    [21, `${"x".repeat(20)}<|im_end|>`],
  );
  assert.equal(summary?.["type"], "summary");
  assert.deepEqual(summary?.["train"], {
    ...{ examples: 2, rows: 2, row_tokens: 64, tokens: 73, learnt: 67 },
    ...{ examples_cut: 1, tokens_cut: 21, tokens_left_over: 0 },
  });
});

test("all rows that cannot be used are told at once, with exit code 1 where a run would end", async () => {
  const rows = Array.from({ length: 60 }, (_, i) =>
    i % 2 === 0 && i < 50 ? chat("q", "") : chat(`q${i}`, "a"),
  );
  rows[1] = "{";
  await writeFile(job.file("bad.jsonl"), rows.join("\n"));
  const strict = await preview({ dataset: "bad.jsonl" }, "--rows=0");
  assert.equal(strict.code, 1);
  assert.match(strict.stderr, /^A run ends at the first row that cannot be used: /);
  assert.match(
    strict.text,
    /^Read\n {2}bad\.jsonl {2}messages {2}59 rows\n26 rows cannot be used:\n/,
  );
  assert.match(strict.text, /\n {2}E_DATA_NO_ANSWER: bad\.jsonl:1: /);
  assert.match(strict.text, /\n {2}E_DATA_INVALID_JSON: bad\.jsonl:2:2: /);
  assert.match(strict.text, /\n {2}and 6 more\n/);
  const skipping = await preview({ dataset: "bad.jsonl", on_bad_row: "skip" }, "--rows", "0");
  assert.deepEqual([skipping.code, skipping.stderr], [0, ""]);
  assert.equal(skipping.text, strict.text);
  // The row that is asked for is one of them.
  const asked = await preview({ dataset: "bad.jsonl" }, "--row", "bad.jsonl:3");
  assert.equal(asked.code, 1);
  assert.match(asked.stderr, /^E_DATA_NO_ANSWER: bad\.jsonl:3: /);
  const late = await preview({ dataset: "bad.jsonl" }, "--row", "bad.jsonl:49");
  assert.equal(late.code, 1);
  assert.match(late.stderr, /^E_DATA_NO_ANSWER: bad\.jsonl:49: /);
  const json = await preview({ dataset: "bad.jsonl" }, "--rows=0", "--json");
  assert.equal(json.lines.filter((line) => line.includes('"type":"rejected"')).length, 26);
  const full = await preview({ dataset: "bad.jsonl" }, "--rows=0", "--full");
  assert.equal(full.lines.filter((line) => line.startsWith("  E_DATA_")).length, 26);
});

test("where most rows are bad, or nothing is left, they are listed before the error of the run", async () => {
  await writeFile(
    job.file("worse.jsonl"),
    [chat("q", ""), chat("r", ""), chat("s", "t")].join("\n"),
  );
  for (const args of [[], ["--json"]]) {
    const { code, stderr, lines } = await preview({ dataset: "worse.jsonl" }, ...args);
    assert.equal(code, 1);
    assert.match(stderr, /^E_DATA_TOO_MANY_BAD_ROWS: 2 of 3 rows cannot be used/);
    assert.equal(lines.filter((line) => line.includes("E_DATA_NO_ANSWER")).length, 2);
  }
});

test("a row is found by its file and line, on either side, or said to be nowhere", async () => {
  const rows = Array.from({ length: 20 }, (_, i) => chat(`${i}?`, `${i}!`));
  await writeFile(job.file("many.jsonl"), rows.join("\n"));
  const settings = { dataset: "many.jsonl", validation_split: 0.2 };
  const sides = new Map<string, number>();
  for (const line of [1, 5, 9, 13, 17, 20]) {
    const { code, lines, text } = await preview(settings, "--row", `many.jsonl:${line}`);
    assert.equal(code, 0);
    const side = /^(\w+) row \d+ of (4|16): /.exec(lines[0] ?? "")?.[1] ?? assert.fail(text);
    sides.set(side, line);
    assert.ok(lines.includes(`  │ ⟦${line - 1}!<|im_end|>⟧`), text);
  }
  const validation = await preview(settings, "--split", "validation", "--rows", "9");
  assert.equal(validation.lines.filter((line) => line.startsWith("validation row ")).length, 4);
  const nowhere = await preview(settings, "--row", "many.jsonl:21");
  assert.equal(nowhere.code, 2);
  assert.match(nowhere.stderr, /no example comes from many\.jsonl:21; .* as in many\.jsonl:1\./);
  const line = sides.get("training") ?? assert.fail();
  const other = await preview(settings, "--split", "validation", "--row", `many.jsonl:${line}`);
  assert.match(other.stderr, /is on the training side: --split train/);
});

test("examples that share a row are shown one by one, a class is shown with its number, a number as it is", async () => {
  const rows = Array.from({ length: 6 }, (_, i) => chat(`${i}`, "a"));
  await writeFile(job.file("short.jsonl"), rows.join("\n"));
  const packed = await preview({ dataset: "short.jsonl", packing: true }, "--rows", "1");
  assert.match(
    packed.lines[0] ?? "",
    /^training row 1 of 3: 46 tokens, 4 learnt, 18 of padding, 2 examples$/,
  );
  assert.equal(packed.lines.filter((line) => /^ {2}short\.jsonl:\d messages/.test(line)).length, 2);

  const labelled = ["text,label", "fine,good", "poor,bad", "fair,good"].join("\n");
  await writeFile(job.file("labels.csv"), labelled);
  const classes = await preview({ dataset: "labels.csv" });
  assert.equal(classes.code, 0, classes.stderr);
  assert.ok(classes.lines.includes('  label, learnt: "bad", class 0'), classes.text);
  assert.ok(classes.lines.includes("  classes: 0 bad, 1 good"), classes.text);

  await writeFile(job.file("numbers.csv"), ["text,label", "fine,0.1", "poor,-100"].join("\n"));
  const numbers = await preview({ dataset: "numbers.csv" });
  assert.equal(numbers.code, 0, numbers.stderr);
  for (const line of ["  label, learnt: 0.1", "  label, learnt: -100", "  outputs: 0 LABEL_0"]) {
    assert.ok(numbers.lines.includes(line), numbers.text);
  }
  const json = await preview({ dataset: "numbers.csv" }, "--json");
  const told = json.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const [row, summary] = ["row", "summary"].map((type) =>
    told.find((each) => each["type"] === type),
  );
  assert.deepEqual([row?.["label"], row?.["class"]], [Math.fround(0.1), undefined]);
  assert.deepEqual([summary?.["outputs"], summary?.["classes"]], [["LABEL_0"], undefined]);
});

test("what a run refuses of the data is refused, and bad arguments exit with 2", async () => {
  await writeFile(job.file("unknown.jsonl"), JSON.stringify({ question: "a" }));
  const unknown = await preview({ dataset: "unknown.jsonl" });
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /^E_DATA_FORMAT_UNKNOWN: unknown\.jsonl:1: /);
  for (const [args, expected] of [
    [["--rows", "x"], /--rows x is not a whole number/],
    [["--rows", "2", "--row", "a:1"], /--rows or --row, not both/],
    [["--split", "test"], /--split test is neither train nor validation/],
    [["--split", "validation"], /no row is kept for validation/],
    [["--row"], /--row needs a value/],
  ] as const) {
    const { code, stderr } = await preview({ dataset: "chats.jsonl" }, ...args);
    assert.equal(code, 2, stderr);
    assert.match(stderr, expected);
  }
  await writeFile(job.file("two.csv"), ["text,label", "fine,good", "poor,bad"].join("\n"));
  const weights = await preview({ dataset: "two.csv" }, "--class-weights", "{good: 2}");
  assert.equal(weights.code, 1);
  assert.match(
    weights.stderr,
    /^E_CONFIG_INVALID: class_weights .* none for "bad" \(flag --class-weights\)/m,
  );
  const slip = await job.lockstep(["data", "previw"]);
  assert.deepEqual([slip.code, /did you mean preview\?/.test(slip.stderr)], [2, true]);
  const bare = await job.lockstep(["data"]);
  assert.equal(bare.code, 2);
  assert.match(bare.stderr, /^Usage: lockstep data preview /);
  const key = await preview({ dataset: "chats.jsonl" }, "--max_lenght", "9");
  assert.match(key.stderr, /did you mean max_length/);
});

test("who stops reading ends the preview without an error", async () => {
  const config = await job.writeJob({ ...defaults, dataset: "many.jsonl" });
  const lockstep = `"${process.execPath}" "${join(packageRoot, "bin/lockstep")}"`;
  const line = `${lockstep} data preview "${config}" --rows 20 --full | head -1; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await runProgram("bash", ["-c", line], { cwd: job.directory });
  assert.equal(stderr, "");
  assert.match(stdout, /^training row 1 of 20: .*\n0\n$/);
});

test("the command needs neither weights nor the engine", async () => {
  const packages = [...staticClosure("cli/data.ts")].flatMap((path) =>
    importsOf(readSource(path)).flatMap(({ typeOnly, specifier }) =>
      typeOnly ? [] : [packageOf(specifier)],
    ),
  );
  assert.deepEqual(
    packages.filter((name) => /^@tensorflow|^@grpc/.test(name ?? "")),
    [],
  );
  const other = await createCaseJob(undefined);
  try {
    for (const name of readdirSync(other.modelDirectory)) {
      if (name.endsWith(".safetensors")) await writeFile(`${other.modelDirectory}/${name}`, "");
    }
    await writeFile(other.file("chats.jsonl"), chat("a", "b"));
    const keys = { model_name_or_path: "model", dataset: "chats.jsonl", validation_split: "0" };
    const args = Object.entries(keys).flatMap(([key, value]) => [`--${key}`, value]);
    const batch = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "1"];
    const { code, stderr } = await other.lockstep([
      "data",
      "preview",
      ...args,
      ...batch,
      "--workers=1",
    ]);
    assert.equal(code, 0, stderr);
  } finally {
    await other.remove();
  }
});

function rowOf(parts: readonly (readonly [text: string, isLearnt: boolean])[]): PreviewRow {
  const texts = parts.map(([text], start) => ({ start, count: 1, text }));
  return {
    ...{ split: "train", row: 0, numPadding: 0, label: undefined, texts },
    ids: Int32Array.from(parts, (_, i) => i),
    isLearnt: parts.map(([, isLearnt]) => isLearnt),
    pieces: [
      {
        ...{ place: "a.jsonl:1", format: "messages", offset: 0, length: parts.length, before: 0 },
        ...{ numTokens: parts.length, numCut: 0, cutText: "" },
      },
    ],
  };
}

const plain: PreviewStyle = {
  ...{ columns: 80, color: false, palette: plainPalette, isFull: false },
};

test("no line is wider than the terminal, with wide characters, long words and colours", () => {
  const parts = Array.from({ length: 300 }, (_, i): readonly [string, boolean] => [
    ["漢字かな", "🙂🙂", "x".repeat(50), " word", "\n", "é"][i % 6] ?? "",
    i % 40 > 20,
  ]);
  for (const columns of [40, 80, 120]) {
    for (const color of [false, true]) {
      const palette = color ? colorPalette : plainPalette;
      const style = { columns, color, palette, isFull: true };
      // A head line may be as long as the name of a file.
      const [, , ...lines] = rowLines(rowOf(parts), 1, false, style);
      for (const line of lines) {
        assert.ok(displayWidth(line) < columns, `${columns}: ${line}`);
      }
    }
  }
});

test("a text's own marks, escapes and invisible characters cannot pass for ours", () => {
  assert.deepEqual(marksFor("a ⟦ b"), ["⟪", "⟫"]);
  assert.deepEqual(marksFor("⟦⟪⦃⟬⟦1:"), ["⟦2:", ":2⟧"]);
  const lines = rowLines(
    rowOf([
      ["⟦a", false],
      ["\u001b[31mred\u202e\u200b\r", true],
    ]),
    1,
    false,
    plain,
  ).join("\n");
  assert.ok(lines.includes("⟦a⟪\\u001b[31mred\\u202e\\u200b\\r⟫"), lines);
  assert.ok(!/[\u001b\u202e\u200b\r]/.test(lines));
  assert.equal(visible("a\tb\n👩‍👩‍👧 \ud83d x \u2028"), "a\\tb\n👩‍👩‍👧 \\ud83d x \\u2028");
});

test("long stretches are shortened in their middle, with what is left out counted", () => {
  assert.deepEqual(shortened("abc", 3), [{ text: "abc", isNote: false }]);
  assert.deepEqual(
    shortened("🙂".repeat(10), 4).map(({ text }) => text),
    ["🙂🙂", "[… 6 characters …]", "🙂🙂"],
  );
  const parts = Array.from({ length: 3000 }, (_, i): readonly [string, boolean] => [
    "word ",
    i >= 2000,
  ]);
  const lines = rowLines(rowOf(parts), 1, false, plain);
  assert.ok(lines.length < 80, `${lines.length} lines`);
  assert.ok(
    lines.some((line) => line.includes("[… 9,400 characters …]")),
    lines.join("\n"),
  );
  // What changes is there: the first token that is learnt, and the one before it.
  assert.ok(lines.some((line) => /^ +1999 +1999 +"word "$/.test(line)));
  assert.ok(lines.some((line) => /^ +2000 +2000 +yes +"word "$/.test(line)));
  const listed = lines.filter((line) => /^ +\d+ +\d+ /.test(line)).length;
  const counted = lines.flatMap((line) => /⋮ +([\d,]+) tokens/.exec(line)?.[1] ?? []);
  const left = counted.reduce((sum, each) => sum + Number(each.replace(",", "")), 0);
  assert.equal(listed + left, 3000);
  assert.equal(rowLines(rowOf(parts), 1, false, { ...plain, isFull: true }).length > 3000, true);
});
