import assert from "node:assert/strict";
import { test } from "node:test";
import { modelConfigFor } from "#lib/checkpoint/model-config";

// The rewritten configurations give transformers 4.57.6 and 5.24.0 the same logits, which the sources
// do not: v4 reads none of rope_parameters.

const rewritten = (text: string): Record<string, unknown> =>
  JSON.parse(
    modelConfigFor({ text, config: JSON.parse(text) as Record<string, unknown> }, "float32"),
  ) as Record<string, unknown>;

const of = (parameters: string, more = ""): string =>
  `{\n  "dtype": "float32",\n  "rope_parameters": ${parameters}${more},\n  "vocab_size": 32\n}\n`;

test("rope_parameters of v5 is repeated under the names of v4", () => {
  const llama3 =
    '{\n    "factor": 8.0,\n    "original_max_position_embeddings": 64,\n    "rope_theta": 500000.0,\n    "rope_type": "llama3"\n  }';
  const text = of(llama3);
  const config = JSON.parse(text) as Record<string, unknown>;
  assert.equal(
    modelConfigFor({ text, config }, "float16"),
    of(
      llama3,
      `,\n  "rope_scaling": ${llama3.replace('    "rope_theta": 500000.0,\n', "")},\n  "rope_theta": 500000.0`,
    ).replace('"float32"', '"float16"'),
  );
  assert.deepEqual(
    rewritten(of('{"rope_theta": 1e6, "rope_type": "default", "partial_rotary_factor": 0.5}')),
    {
      ...(JSON.parse(
        of('{"rope_theta": 1e6, "rope_type": "default", "partial_rotary_factor": 0.5}'),
      ) as object),
      partial_rotary_factor: 0.5,
      rope_scaling: null,
      rope_theta: 1e6,
    },
  );
});

test("Gemma 3's two bases get their two names; long lists are kept", () => {
  const layers =
    '{"full_attention": {"factor": 8.0, "rope_theta": 1e6, "rope_type": "linear"}, "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"}}';
  const { rope_theta, rope_local_base_freq, rope_scaling } = rewritten(of(layers));
  assert.deepEqual(
    [rope_theta, rope_local_base_freq, rope_scaling],
    [1e6, 2e4, { factor: 8, rope_type: "linear" }],
  );
  const long =
    '{"rope_theta": 1e4, "rope_type": "longrope", "short_factor": [1.0,\n  1.5], "long_factor": [2.0, 3e1]}';
  assert.deepEqual(rewritten(of(long))["rope_scaling"], {
    rope_type: "longrope",
    short_factor: [1, 1.5],
    long_factor: [2, 30],
  });
});

test("a configuration that has v4's names, or no rotary positions, stays as it is", () => {
  const v4 = '{"torch_dtype": "float32", "rope_theta": 5.0, "rope_scaling": null}';
  const both = of('{"rope_theta": 5.0, "rope_type": "default"}', ',\n  "rope_theta": 5.0');
  for (const text of [v4, both, '{"dtype": "float32"}', of("null"), of("{}")]) {
    const config = JSON.parse(text) as Record<string, unknown>;
    const expected = text.includes("{},") ? { ...config, rope_scaling: null } : config;
    assert.deepEqual(rewritten(text), expected, text);
  }
});
