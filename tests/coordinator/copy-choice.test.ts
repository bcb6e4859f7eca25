import assert from "node:assert/strict";
import { test } from "node:test";
import { CopyChoice } from "#coordinator/copy-choice";

const free = 100e9;

test("what is read before the next step's gradients are there is not copied", () => {
  const choice = new CopyChoice(undefined);
  const isCopied = (bytes: number): boolean => choice.isCopied(bytes, free);
  // No step has been made.
  assert.equal(isCopied(4e9), true);
  choice.stepCompleted(13.5);
  assert.equal(isCopied(4e9), false);
  assert.equal(isCopied(8e9), true);
  // A disk that turned out to be slow, and one that is fast.
  choice.saved(4e9, 40);
  assert.equal(isCopied(4e9), true);
  choice.saved(4e9, 4);
  assert.equal(isCopied(8e9), false);
  choice.stepCompleted(1);
  assert.equal(isCopied(4e9), true);
});

test("little is copied always, and nothing that memory has no room for", () => {
  const choice = new CopyChoice(undefined);
  choice.stepCompleted(100);
  assert.equal(choice.isCopied(200e6, free), true);
  assert.equal(choice.isCopied(200e6, 400e6), false);
  assert.equal(new CopyChoice(undefined).isCopied(30e9, free), false);
});

test("a limit that is given decides alone", () => {
  const choice = new CopyChoice(1_000);
  choice.stepCompleted(100);
  assert.deepEqual([choice.isCopied(1_000, 0), choice.isCopied(1_001, free)], [true, false]);
});
