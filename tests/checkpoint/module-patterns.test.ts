import assert from "node:assert/strict";
import { test } from "node:test";
import {
  matchesEnd,
  matchesWhole,
  partProblem,
  patternProblem,
} from "#lib/checkpoint/peft/patterns";
import { RandomStream } from "#lib/core/random";

/** Patterns over a small alphabet, in which every construction stands within every other. */
function randomPattern(random: RandomStream, depth = 3): string {
  const of = (count: number): number => random.nextBelow(count);
  const pick = (choices: readonly string[]): string => choices[of(choices.length)] as string;
  const atom = (): string => {
    const kind = of(depth > 0 ? 9 : 4);
    if (kind < 3) return pick(["a", "b", "\\.", "1", ".", "\\d", "\\w", "[ab]", "[^a]", "[a-c1]"]);
    if (kind === 3) return pick(["\\b", "^", "$", "\\B", "a", "b"]);
    const inner = randomPattern(random, depth - 1);
    return kind === 8
      ? pick([`(?=${inner})`, `(?!${inner})`])
      : pick([`(${inner})`, `(?:${inner})`]);
  };
  const part = (): string => {
    const one = atom();
    const isPlace = /^(\\b|\\B|\^|\$|\(\?[=!])/.test(one);
    return one + (isPlace ? "" : pick(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"]));
  };
  const sequence = (): string => Array.from({ length: 1 + of(3) }, part).join("");
  return Array.from({ length: 1 + of(depth > 0 ? 2 : 1) }, sequence).join("|");
}

test("patterns describe what JavaScript's own expressions do, where these end", () => {
  const random = new RandomStream(5, "initialization", 0);
  const texts = ["", "a", "b", "ab", "a.b", "aab1", "1.a.b", "b.b", "a1a1", ".", "abab.1"];
  let numMatches = 0;
  for (let i = 0; i < 3_000; i++) {
    const pattern = randomPattern(random);
    const own = new RegExp(`^(?:${pattern})$`);
    const ends = new RegExp(`^(?:.*\\.)?(?:${pattern})$`);
    for (const text of texts) {
      if (own.test(text)) numMatches++;
      assert.equal(matchesWhole(pattern, text), own.test(text), `${pattern} of ${text}`);
      // A ^ behind a part of the path holds nowhere.
      assert.equal(matchesEnd(pattern, text), ends.test(text), `the end of ${text} by ${pattern}`);
    }
  }
  assert.ok(numMatches > 3_000, String(numMatches));
});

test("a pattern that backtracks without end takes no time", () => {
  const path = "model.layers.10.self_attn.q_proj".repeat(8);
  const started = performance.now();
  for (const pattern of [
    "(?:(?:[a-z._\\d])+)+X",
    "((\\w+|\\.))*X",
    "(a|aa|.)+X",
    "(.*.*.*.*.*.*.*.*.*.*)*X",
    "(?=(.*.*)*X)(.|..)*",
    `${"(.*)*".repeat(100)}X`,
    "(((((((.*)*)*)*)*)*)*)*X",
  ]) {
    assert.equal(patternProblem(pattern), undefined, pattern);
    assert.equal(matchesWhole(pattern, path), false, pattern);
    assert.equal(matchesEnd(pattern, path), false, pattern);
  }
  assert.ok(performance.now() - started < 2_000);
});

test("as Python reads them: braces without a first number, and a ] that stands first", () => {
  assert.ok(matchesWhole("a{,2}b", "aab"));
  assert.ok(!matchesWhole("a{,2}b", "aaab"));
  assert.ok(matchesWhole("[]a]+", "a]"));
  assert.ok(matchesWhole("[^]]", "a"));
  assert.ok(matchesWhole("x{}", "x{}"));
  assert.ok(matchesWhole("[a-]+", "a-"));
});

test("what is no expression, or grows without limit, is refused by what is wrong", () => {
  for (const [pattern, problem] of [
    ["(", /no regular expression \(a \( is not closed\)/],
    ["a)", /a \) closes nothing/],
    ["[a", /a \[ is not closed/],
    ["*a", /nothing to repeat/],
    ["a**", /multiple repeat/],
    ["a*+", /multiple repeat/],
    ["[b-a]", /ends before it begins/],
    ["a{3,2}", /more than its most/],
    ["a\\", /ends with a backslash/],
    ["(?P<a>q)", /no regular expression/],
    ["(?<=a)b", /no regular expression/],
    ["(?i)a", /no regular expression/],
    ["(a)\\1", /\\1 repeats what was met/],
    ["\\A", /\\A is not known/],
    ["((a{100}){100}){100}", /repeats more/],
    ["a{1,99999999}", /repeats more/],
    ["a{99999999}", /repeats more/],
    ["(".repeat(2_000) + ")".repeat(2_000), /nested groups/],
    ["a".repeat(5_000), /more than 4096 characters/],
  ] as const) {
    assert.match(patternProblem(pattern) ?? "", problem, pattern.slice(0, 40));
  }
  assert.match(partProblem("h|layers") ?? "", /reaches beyond it in peft/);
  assert.equal(partProblem("(h|layers)"), undefined);
});
