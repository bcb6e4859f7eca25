import assert from "node:assert/strict";
import { test } from "node:test";
import type { Label } from "#lib/core/labels";
import { classLabels } from "#lib/objectives/class-labels";
import { labelSets } from "#lib/objectives/label-sets";
import { numberLabels } from "#lib/objectives/number-labels";

const read = (value: unknown): Label => {
  const found = numberLabels.read(value);
  if ("problem" in found) throw new Error(found.problem);
  return found.label;
};

/** The outputs of some rows, and of each row its targets. */
function outputsOf(values: readonly unknown[], known: readonly string[] = []) {
  const table = numberLabels.table();
  const numbers = values.map((value, row) => table.numberOf(read(value), `rows:${row + 1}`));
  return { table, numbers, outputs: table.classesOf(numbers, known) };
}

test("a row has a number, as JSON or a table writes it, or a list of them", () => {
  for (const [value, label] of [
    [2.5, 2.5],
    [-100, -100],
    ["0.25", 0.25],
    ["-1e-3", -0.001],
    ["+3.", 3],
    [".5", 0.5],
    ["007", 7],
    [
      [1, "2.5", " -3 "],
      [1, 2.5, -3],
    ],
    [3e38, 3e38],
  ] as const) {
    assert.deepEqual(read(value), label);
  }
});

test("what is no number is refused with what it is", () => {
  for (const [value, problem] of [
    ["1,5", /^is no number but "1,5"; a point stands before its decimals$/],
    ["NaN", /^is no number but "NaN"; objective: regression learns numbers/],
    ["nan", /^is no number but "nan"/],
    ["Infinity", /^is no number but "Infinity"/],
    ["-inf", /^is no number but "-inf"/],
    ["good", /^is no number but "good".*single_label_classification classes$/],
    ["1.5 stars", /^is no number/],
    ["0x10", /^is no number/],
    [Number.NaN, /^is no number but NaN/],
    [Number.NEGATIVE_INFINITY, /^is no number but -Infinity/],
    [true, /^is no number but true/],
    ["true", /^is no number but "true"/],
    [{ score: 1 }, /^is no number but \{"score":1\}/],
    [1e39, /^is 1e\+39, beyond what a float32 number holds$/],
    ["-4e38", /^is "-4e38", beyond/],
    ["[0.5, 1.5]", /^is a list as text: several numbers stand in JSON/],
    [[], /^is a list without a number$/],
    [[0.5, "b"], /^lists a value that is no number but "b"/],
    [[0.5, null], /^lists a value that is no number but null/],
    [[[0.5]], /^lists a value that is no number but \[0.5\]/],
  ] as const) {
    const found = numberLabels.read(value);
    assert.ok("problem" in found && problem.test(found.problem), JSON.stringify(found));
  }
});

test("without a key fractions are numbers to learn, and whole numbers, names and lists are not", () => {
  for (const value of [0.5, "0.5", -2.25, "1e-3"]) {
    assert.ok(numberLabels.suits?.(value) && classLabels.suits?.(value) === false, String(value));
  }
  for (const value of [1, "1", "1.0", "2e3", "a", "1,5", "NaN", true]) {
    assert.ok(numberLabels.suits?.(value) === false && classLabels.suits?.(value), String(value));
  }
  for (const value of [[0.5, 1], [Number.NaN], Number.NaN, Number.POSITIVE_INFINITY, null]) {
    assert.ok(numberLabels.suits?.(value) === false, String(value));
    assert.equal(classLabels.suits?.(value), false, String(value));
  }
  assert.ok(!("problem" in labelSets.read([0.5, 1])));
});

test("rows give their numbers as float32 beside a mark that they count, and outputs have names", () => {
  const { numbers, outputs } = outputsOf([0.1, "-100", 3]);
  assert.deepEqual([outputs.names, outputs.areNumbers], [["LABEL_0"], true]);
  assert.deepEqual(outputs.fields, [
    { name: "numbers", dtype: "float32", perRow: 1 },
    { name: "counted", dtype: "int32", perRow: 1 },
  ]);
  const targets = numbers.map((number) => outputs.targetsOf(number));
  assert.deepEqual(
    targets,
    [0.1, -100, 3].map((value) => ({
      numbers: Float32Array.of(value),
      counted: Int32Array.of(1),
    })),
  );
  assert.deepEqual(outputs.shownOf(targets[1] ?? {}), [-100]);
  const pairs = outputsOf([
    [1, 2],
    [3, 4],
  ]).outputs;
  assert.deepEqual(pairs.names, ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(outputsOf([[1, 2]], ["mood", "speed"]).outputs.names, ["mood", "speed"]);
  assert.deepEqual(outputsOf([1], ["mood", "speed"]).outputs.names, ["LABEL_0"]);
});

test("rows of different numbers of numbers are refused with the place of one", () => {
  assert.throws(
    () => outputsOf([[1, 2], [3]]),
    /rows:2: .* one row has 2 numbers \(rows:1\), another 1, and all need as many/,
  );
  const { table, outputs } = outputsOf([[1, 2]]);
  const short = table.numberOf(0.5, "validation:3");
  assert.equal(outputs.targetsOf(short), undefined);
  assert.match(
    table.unseen(short, outputs).message,
    /^validation:3: .* the label has 1 number, and in the rows to train on 2/,
  );
  const next = table.numberOf(1.5, "validation:4");
  assert.match(table.unseen(next, outputs).message, /^validation:4: /);
});
