import assert from "node:assert/strict";
import { test } from "node:test";
import { parseLlamaConfig } from "#lib/models/llama/config";

const config = {
  hidden_size: 64,
  intermediate_size: 96,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  vocab_size: 287,
};

test("a number of layers that would fill the memory is refused", () => {
  assert.equal(parseLlamaConfig(config).layers.length, 2);
  assert.throws(() => parseLlamaConfig({ ...config, num_hidden_layers: 1e8 }), {
    code: "E_MODEL_CONFIG",
    message: /num_hidden_layers.*at most 4096.*100000000/,
  });
});
