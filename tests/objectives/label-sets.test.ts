import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import type { Label } from "#lib/core/labels";
import { packageRoot } from "#lib/core/paths";
import { classLabels } from "#lib/objectives/class-labels";
import { labelSets } from "#lib/objectives/label-sets";

const read = (value: unknown): Label => {
  const found = labelSets.read(value);
  if ("problem" in found) throw new Error(found.problem);
  return found.label;
};

/** The classes of some rows, and of each row its targets. */
function classesOf(values: readonly unknown[], known: readonly string[] = []) {
  const table = labelSets.table();
  const numbers = values.map((value, row) => table.numberOf(read(value), `rows:${row + 1}`));
  const classes = table.classesOf(numbers, known);
  const targets = numbers.map((number) => [...(classes.targetsOf(number)?.["labels"] ?? [])]);
  return { table, classes, targets };
}

test("lists are of classes by name or number, in sorted order, and may be empty", () => {
  const { classes, targets } = classesOf([["sport", "art"], [], ["news "], ["art", "sport"]]);
  assert.deepEqual(classes.names, ["art", "news", "sport"]);
  const both = [1, 0, 1];
  assert.deepEqual(targets, [both, [0, 0, 0], [0, 1, 0], both]);
  assert.deepEqual(classes.fields, [{ name: "labels", dtype: "float32", perRow: 3 }]);
  assert.deepEqual(classes.shownOf({ labels: Float32Array.from(both) }), [0, 2]);
  const numbers = classesOf([[2, 0], ["1"], [0]]);
  assert.deepEqual(numbers.classes.names, ["LABEL_0", "LABEL_1", "LABEL_2"]);
  assert.deepEqual(numbers.targets, [
    [1, 0, 1],
    [0, 1, 0],
    [1, 0, 0],
  ]);
  assert.deepEqual(classesOf([[0], [1], [1]]).targets, [
    [1, 0],
    [0, 1],
    [0, 1],
  ]);
});

test("the rows of the page on classification are read as it says", async () => {
  const page = await readFile(join(packageRoot, "docs/classification.md"), "utf8");
  const [, block = ""] = /### Several labels a row\n\n```json\n(.*?)```/s.exec(page) ?? [];
  const rows = block.trim().split("\n");
  const { classes, targets } = classesOf(
    rows.map((row) => (JSON.parse(row) as { label: unknown }).label),
  );
  assert.deepEqual(classes.names, ["animals", "sport"]);
  assert.deepEqual(targets, [
    [1, 1],
    [1, 0],
    [0, 0],
  ]);
});

test("lists of one length that hold 0 and 1 alone say of each class whether it holds", () => {
  const vectors = [
    [0, 1, 1],
    [false, true, false],
    [0, 0, 0],
  ];
  const { classes, targets } = classesOf(vectors);
  assert.deepEqual(classes.names, ["LABEL_0", "LABEL_1", "LABEL_2"]);
  assert.deepEqual(
    targets,
    vectors.map((row) => row.map(Number)),
  );
  assert.deepEqual(classesOf(vectors, ["a", "b", "c"]).classes.names, ["a", "b", "c"]);
});

test("classes of the model keep their numbers where all labels are among them", () => {
  const { classes, targets } = classesOf([["b"], ["a", "b"]], ["b", "c", "a"]);
  assert.deepEqual(classes.names, ["b", "c", "a"]);
  assert.deepEqual(targets, [
    [1, 0, 0],
    [1, 0, 1],
  ]);
});

test("what is no list, or no list of labels, is refused by its problem", () => {
  for (const [value, problem] of [
    ["art", /is no list: several labels stand in JSON/],
    [3, /is no list/],
    [[["a"]], /lists a label that is neither text nor a number/],
    [["a", null], /lists a label that is neither/],
    [["a", " "], /lists an empty label/],
    [[2 ** 60], /more digits/],
  ] as const) {
    const found = labelSets.read(value);
    assert.ok("problem" in found && problem.test(found.problem), JSON.stringify(found));
  }
});

test("lists that make no classes are refused with their place", () => {
  const refused = (values: readonly unknown[], message: RegExp): void =>
    assert.throws(
      () => classesOf(values),
      (error) => isLockstepError(error) && message.test(`${error.code}: ${error.message}`),
    );
  refused([["a"], [1, "1"]], /rows:2: .* lists "1" twice/);
  refused([["0"], ["1", "1.0"]], /rows:2: .* lists "1.0" twice/);
  const zeros = [0, 0];
  refused([zeros, [false, false]], /rows:1: .*no row to train on has a label/);
  refused([["a"], ["a"]], /rows:1: .*all rows to train on have the labels \["a"\]/);
  // Every class of every row: 0 and 1 of each class, in quotes.
  refused(
    [
      ["0", "1"],
      ["1", "0"],
    ],
    /rows:1: .*all rows to train on have the labels \["LABEL_0","LABEL_1"\]/,
  );
  refused([["a"], ["b", "b"]], /E_LABELS_INVALID: rows:2: .* lists "b" twice/);
  // Of two lengths, so that 0 and 1 are classes.
  refused([[0, 1, 0], [0]], /E_LABELS_INVALID: rows:1: .* lists 0 twice/);
  refused([[], []], /E_LABELS_INVALID: rows:1: .*no row to train on has a label/);
  refused([[0, 2]], /E_LABELS_INVALID: .*no row has the label 1/);
  refused([[0.5], [1]], /E_LABELS_INVALID: .*the label 0.5 is no class/);
  refused(
    [
      [0.5, 0.5],
      [1, 0],
    ],
    /rows:1: .* lists 0.5 twice; objective: regression learns numbers/,
  );
});

test("a label that a row for validation lists twice is refused, and one set of a model's classes is not", () => {
  const table = labelSets.table();
  const trained = [["a"], ["b"]].map((label, row) => table.numberOf(label, `rows:${row + 1}`));
  table.numberOf(["a", "a"], "validation:1");
  assert.throws(() => table.classesOf(trained), /validation:1: .* lists "a" twice/);
  const known = classesOf([["b"], ["b"]], ["a", "b"]);
  assert.deepEqual(known.targets, [
    [0, 1],
    [0, 1],
  ]);
});

test("a list that stands in a cell as text is no class; brackets around words are", () => {
  for (const value of ['["a", "b"]', "['a','b']", "[1, 0, 1]", " [] ", "[0.5]"]) {
    const found = classLabels.read(value);
    assert.ok("problem" in found && /is a list as text/.test(found.problem), value);
  }
  for (const value of ["[INST]", "[a, b]", "a, b", '["a"] or b', "[-"]) {
    assert.deepEqual(classLabels.read(value), { label: value });
  }
});

test("a label that training never saw is named alone, a vector of another length whole", () => {
  const { table, classes } = classesOf([["a"], ["a", "b"]]);
  const number = table.numberOf(["b", "c"], "validation:3");
  assert.equal(classes.targetsOf(number), undefined);
  assert.match(table.unseen(number, classes).message, /^validation:3: the label "c" .*\(a, b\)/);
  const vectors = classesOf([
    [0, 1, 1],
    [1, 0, 0],
  ]);
  const short = vectors.table.numberOf([0, 1], "validation:4");
  assert.equal(vectors.classes.targetsOf(short), undefined);
  assert.match(vectors.table.unseen(short, vectors.classes).message, /^validation:4: .*\[0,1\]/);
});
