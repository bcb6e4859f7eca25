import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { nameMatcher, pathMatcher } from "#lib/data/sources/glob";

/** What a name's pattern means, as a regular expression. */
const nameExpression = (part: string): RegExp =>
  new RegExp(
    `^${part
      .replace(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", "[^/]*")
      .replaceAll("?", "[^/]")}$`,
    "s",
  );

test("names match as a regular expression says, whatever is in them", () => {
  const text = fc.stringMatching(/^[ab.*?[\]!\\-]{0,8}$/);
  const name = fc.stringMatching(/^[ab.[\]!\\-]{0,8}$/);
  fc.assert(
    fc.property(text, name, (pattern, subject) => {
      const isMeant = nameMatcher(pattern, { hasClasses: false });
      assert.equal(isMeant(subject), nameExpression(pattern).test(subject));
    }),
  );
});

for (const [pattern, yes, no] of [
  ["data/*.jsonl", ["data/a.jsonl", "data/.jsonl"], ["data/a/b.jsonl", "data/a.json"]],
  ["**/train-[0-9]*", ["train-1", "a/b/train-07.csv"], ["train-x", "a/train-"]],
  ["a/**", ["a/b", "a/b/c"], ["a", "b/a"]],
  ["**", ["a", "a/b"], []],
  ["a/**/b/**/c", ["a/b/c", "a/x/b/b/y/c"], ["a/c", "a/b/x"]],
  ["[!a-c]?", ["dz", "-a"], ["az", "d"]],
  // A range that runs backwards is nothing, and a bracket that is never closed is itself.
  ["[z-a]", [], ["z", "a", "m"]],
  ["[a", ["[a"], ["a"]],
  ["a.c", ["a.c"], ["abc"]],
] as const) {
  test(`${pattern} means files as datasets reads it`, () => {
    const isMeant = pathMatcher(pattern);
    assert.deepEqual(
      [...yes, ...no].filter((path) => isMeant(path)),
      yes,
    );
  });
}

test("patterns with a thousand wildcards take no time that counts", () => {
  const before = process.cpuUsage();
  for (const rest of ["*a", "**/"]) {
    const isMeant = pathMatcher(`${rest.repeat(1_000)}b`);
    assert.equal(isMeant("a".repeat(255)), false);
    assert.equal(isMeant("a/".repeat(255)), false);
  }
  pathMatcher(`*.js${"{% if true %}".repeat(10_000)}`);
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 2_000_000, `${(user + system) / 1e6} s`);
});
