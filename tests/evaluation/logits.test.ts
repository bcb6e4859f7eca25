import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { TokenChooser } from "#lib/evaluation/generate/choose";
import {
  applyRepetitionPenalty,
  applyTemperature,
  applyTopK,
  applyTopP,
  argMax,
  drawToken,
  softmax,
} from "#lib/evaluation/generate/logits";
import { generationDefaults } from "#lib/evaluation/generate/options";
import { assertClose } from "#tests/support/compare";

interface Recorded {
  readonly options: {
    readonly repetition_penalty?: number;
    readonly temperature?: number;
    readonly top_k?: number;
    readonly top_p?: number;
  };
  readonly tokens: readonly number[];
  readonly scores: readonly number[];
  readonly expected: readonly (number | null)[];
}

const recorded = JSON.parse(
  readFileSync(join(packageRoot, "tests/fixtures/logits_processors.json"), "utf8"),
) as readonly Recorded[];

test("scores are changed and removed as transformers' processors do", () => {
  for (const { options, tokens, scores, expected } of recorded) {
    const actual = Float32Array.from(scores);
    applyRepetitionPenalty(actual, tokens, options.repetition_penalty ?? 1);
    applyTemperature(actual, options.temperature ?? 1);
    applyTopK(actual, options.top_k ?? actual.length);
    applyTopP(actual, options.top_p ?? 1);
    const what = JSON.stringify(options);
    assert.deepEqual(
      Array.from(actual, Number.isFinite),
      expected.map((value) => value !== null),
      what,
    );
    const kept = (values: Iterable<number | null>): number[] =>
      [...values].filter((value): value is number => value !== null && Number.isFinite(value));
    assertClose(kept(actual), kept(expected), 1e-6, what);
  }
});

test("a draw takes each token as often as its probability says, and no removed one", () => {
  const scores = Float32Array.from([0.3, -Infinity, 1.7, -0.4, 1.1]);
  const probs = softmax(scores);
  const counts = new Float64Array(scores.length);
  const numDraws = 10_000;
  for (let i = 0; i < numDraws; i++) {
    const token = drawToken(scores, (i + 0.5) / numDraws);
    counts[token] = (counts[token] as number) + 1 / numDraws;
  }
  for (const [token, prob] of probs.entries()) {
    assert.ok(Math.abs((counts[token] as number) - prob) <= 1 / numDraws, `token ${token}`);
  }
  assert.equal(counts[1], 0);
  assert.equal(drawToken(scores, 1 - 2 ** -53), 4);
});

test("equal seeds and rows draw equal tokens, other seeds and other rows draw others", () => {
  const options = { ...generationDefaults, doSample: true, topK: 0, seed: 11 };
  const drawn = (seed: number, row: number): number[] => {
    const chooser = new TokenChooser({ ...options, seed }, row);
    return Array.from({ length: 40 }, () => chooser.choose(new Float32Array(50), []));
  };
  assert.deepEqual(drawn(11, 0), drawn(11, 0));
  assert.notDeepEqual(drawn(11, 0), drawn(12, 0));
  assert.notDeepEqual(drawn(11, 0), drawn(11, 1));
  assert.ok(new Set(drawn(11, 0)).size > 10);
});

test("without sampling the choice is the highest score after the penalty, the first of equals", () => {
  assert.equal(argMax(Float32Array.from([1, 3, 3, 2])), 1);
  const chooser = new TokenChooser({ ...generationDefaults, repetitionPenalty: 2 }, 0);
  assert.equal(chooser.choose(Float32Array.from([1, 3, 2, 0]), [1]), 2);
});
