import assert from "node:assert/strict";
import { test } from "node:test";
import { isShardPlace } from "#lib/checkpoint/have-written";

const state = "lockstep/optimizer-00001-of-00002.safetensors";
const model = "model-00001-of-00002.safetensors";
const store = { bucket: "checkpoints", prefix: "run/" };

test("a shard's file is one of a checkpoint or a result that is being written, and no other", () => {
  const beside = "/runs/out/.checkpoint-20.tmp-12.0123abcd-0123456789ab";
  assert.ok(isShardPlace({ file: `${beside}/${state}` }, "state"));
  assert.ok(isShardPlace({ store, key: `checkpoint-20/${state}` }, "state"));
  for (const name of [model, "model.safetensors", `ema/${model}`, `tasks/sentiment/${model}`]) {
    assert.ok(isShardPlace({ file: `${beside}/${name}` }, "model"), name);
    assert.ok(isShardPlace({ file: `/out/.files.tmp-12-0123456789ab/${name}` }, "model"), name);
    assert.ok(isShardPlace({ store, key: `checkpoint-20/${name}` }, "model"), name);
  }
  for (const file of [
    `/runs/out/checkpoint-20/${state}`,
    `out/.checkpoint-20.tmp-12/${state}`,
    `/runs/.checkpoint-20.tmp-1/lockstep/../${state}`,
    "/runs/out/.checkpoint-20.tmp-12/lockstep/state.json",
    `/../.checkpoint-2.tmp-1/${state}`,
    `${beside}/${model}`,
  ]) {
    assert.ok(!isShardPlace({ file }, "state"), file);
  }
  for (const file of [
    `/runs/out/${model}`,
    `/runs/out/checkpoint-20/${model}`,
    `${beside}/${state}`,
    `${beside}/a/b/c/d/${model}`,
    `${beside}/config.json`,
    `${beside}/model.safetensors.index.json`,
  ]) {
    assert.ok(!isShardPlace({ file }, "model"), file);
  }
  for (const key of [model, `other/${model}`, `checkpoint-2/../${model}`, "checkpoint-2/x.json"]) {
    assert.ok(!isShardPlace({ store, key }, "model"), key);
  }
});
