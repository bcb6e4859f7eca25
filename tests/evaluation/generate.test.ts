import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import {
  type Continuation,
  generationDefaults,
  Generator,
  readGenerationConfig,
} from "#lib/evaluation/generate/index";
import { GraphBuilder } from "#lib/graph/builder";
import { canPackProducts } from "#lib/graph/device-probe";
import { Session } from "#lib/graph/session";
import { buildDecodePrograms } from "#lib/tuning/decode-programs";
import { Decoder } from "#lib/tuning/decoder";
import { WeightVariables } from "#lib/tuning/weight-variables";
import { assertClose } from "#tests/support/compare";
import {
  modelFixtureDirectory,
  modelFixtures,
  openCausalFixture,
  readFixtureCase,
} from "#tests/support/model-fixtures";

/** Not those whose rotary frequencies change while the text grows. */
const causalFixtures = modelFixtures.filter(
  (name) => readFixtureCase(name).greedy !== undefined && !/dynamic|longrope/.test(name),
);

const longest = 32;

async function openGenerator(
  name: string,
  options: { batchSize?: number; maxLength?: number; chunkLength?: number } = {},
): Promise<Generator> {
  const { model, readWeight, close } = await openCausalFixture(name);
  try {
    return await Generator.create({ model, readWeight, maxLength: longest, ...options });
  } finally {
    await close();
  }
}

for (const name of causalFixtures) {
  test(`${name} over cached keys continues as transformers does`, async () => {
    const { greedy } = readFixtureCase(name);
    // Chunks that do not divide the prompt.
    const generator = await openGenerator(name, { chunkLength: 4 });
    try {
      const maxNewTokens = greedy?.continuation.length ?? 0;
      const [row] = await generator.generate([greedy?.prompt ?? new Int32Array(0)], {
        ...generationDefaults,
        maxNewTokens,
      });
      assert.deepEqual(row, { tokens: greedy?.continuation, finish: "length" });
    } finally {
      generator.close();
    }
  });

  test(`${name}: rows of different lengths get the logits of their own tokens`, async () => {
    const { tokens, numRows, rowLength, attentionMask } = readFixtureCase(name);
    const expected = await openSafetensors(
      join(modelFixtureDirectory(name), "expected.safetensors"),
    );
    const logits = await expected.readFloat32("logits");
    await expected.close();
    const { model, readWeight, close } = await openCausalFixture(name);
    const graph = new GraphBuilder();
    const autocast = { compute: "float32" } as const;
    const weights = new WeightVariables(graph, model.weights, autocast);
    const shape = { batchSize: numRows + 1, maxLength: rowLength, chunkLength: 3 };
    const programs = buildDecodePrograms({ graph, autocast }, model, () => weights.lookup, shape);
    const session = new Session(graph);
    try {
      await weights.load(session, readWeight);
      const rows = Array.from({ length: numRows }, (_, row) => {
        const start = row * rowLength;
        const length = attentionMask.slice(start, start + rowLength).indexOf(0);
        return tokens.slice(start, start + (length < 0 ? rowLength : length));
      });
      const decoder = new Decoder(session, programs);
      // The second time over what the first one left in the cache.
      for (const firstLength of [5, 2]) {
        const lengths = rows.map((_, row) => firstLength + row);
        let outputs = decoder.start(
          rows.map((row, index) => row.subarray(0, lengths[index])),
          "logits",
        );
        let hasNew = rows.map(() => true);
        while (hasNew.includes(true)) {
          for (const [row, length] of lengths.entries()) {
            if (!hasNew[row]) continue;
            const at = (row * rowLength + length - 1) * model.vocabSize;
            const wanted = logits.subarray(at, at + model.vocabSize);
            assertClose(outputs[row] as Float32Array, wanted, 1e-5, `row ${row} after ${length}`);
          }
          const next = lengths.map((length, row) => rows[row]?.[length] ?? -1);
          outputs = decoder.append(Int32Array.from(next), "logits");
          hasNew = next.map((token) => token >= 0);
          next.forEach((token, row) => {
            if (token >= 0) lengths[row] = (lengths[row] as number) + 1;
          });
        }
      }
    } finally {
      session.close();
      await close();
    }
  });
}

for (const name of ["gpt2", "qwen3"]) {
  for (const compute of ["float32", "bfloat16"] as const) {
    test(`${name}: packed weights give the logits of plain ones in ${compute}`, async (t) => {
      if (!canPackProducts(compute)) return t.skip("this processor packs nothing of this type");
      const packed = await stepLogits(name, compute, true);
      const tolerance = compute === "float32" ? 1e-5 : 2e-2;
      for (const [step, expected] of (await stepLogits(name, compute, false)).entries()) {
        assertClose(packed[step] as Float32Array, expected, tolerance, `step ${step}`);
      }
    });
  }
}

/** Logits of two rows after each of a few given tokens. */
async function stepLogits(
  name: string,
  compute: "float32" | "bfloat16",
  packsWeights: boolean,
): Promise<Float32Array[]> {
  const { model, readWeight, close } = await openCausalFixture(name);
  const graph = new GraphBuilder();
  const autocast = { compute } as const;
  const weights = new WeightVariables(graph, model.weights, autocast, { outputMajor: true });
  const shape = { batchSize: 2, maxLength: longest, chunkLength: 4 };
  const tracer = { graph, autocast, packsWeights };
  const programs = buildDecodePrograms(tracer, model, () => weights.lookup, shape);
  assert.equal(graph.print().includes("_MklNativeFusedMatMul"), packsWeights);
  const session = await weights.open(graph, readWeight);
  try {
    const decoder = new Decoder(session, programs);
    decoder.start([Int32Array.of(5, 9, 11), Int32Array.of(8)], "logits");
    return [40, 62, 31].flatMap((token) =>
      decoder.append(Int32Array.of(token, token + 1), "logits"),
    );
  } finally {
    session.close();
    await close();
  }
}

interface RecordedGeneration {
  readonly model: string;
  readonly prompts: readonly (readonly number[])[];
  readonly settings: { readonly repetition_penalty?: number; readonly eos_token_id?: number[] };
  readonly continuations: readonly (readonly number[])[];
}

test("batches with penalties and end tokens give what transformers' generate gives", async () => {
  const recorded = JSON.parse(
    readFileSync(join(packageRoot, "tests/fixtures/generation.json"), "utf8"),
  ) as readonly RecordedGeneration[];
  for (const { model, prompts, settings, continuations } of recorded) {
    const generator = await openGenerator(model, { batchSize: prompts.length, chunkLength: 8 });
    try {
      const rows = await generator.generate(
        prompts.map((prompt) => Int32Array.from(prompt)),
        {
          ...generationDefaults,
          ...readGenerationConfig("settings", settings),
          maxNewTokens: 15,
        },
      );
      assert.deepEqual(
        rows.map(({ tokens }) => [...tokens]),
        continuations,
        `${model} ${JSON.stringify(settings)}`,
      );
    } finally {
      generator.close();
    }
  }
});

const prompts = [[5, 9, 11, 40, 62, 31, 77], [8], [90, 3, 45, 5, 5, 5, 21, 60, 33, 4, 19]].map(
  (ids) => Int32Array.from(ids),
);

test("a batch gives what its prompts give one by one, greedy and sampled", async () => {
  const together = await openGenerator("llama-llama3-v4", { batchSize: 3 });
  const single = await openGenerator("llama-llama3-v4", { batchSize: 1 });
  try {
    for (const options of [
      { ...generationDefaults, maxNewTokens: 12 },
      {
        ...generationDefaults,
        maxNewTokens: 20,
        doSample: true,
        temperature: 1.3,
        topK: 40,
        seed: 5,
      },
      {
        ...generationDefaults,
        maxNewTokens: 15,
        repetitionPenalty: 1.4,
        endTokenIds: [11, 17, 60],
      },
    ]) {
      const rows = await together.generate(prompts, options);
      assert.deepEqual(rows, await single.generate(prompts, options));
      assert.deepEqual(rows, await together.generate(prompts, options));
    }
  } finally {
    together.close();
    single.close();
  }
});

test("a continuation ends at an end token, at a stop string or at its length", async () => {
  const generator = await openGenerator("qwen3");
  const decode = async (tokens: Int32Array): Promise<string> =>
    [...tokens].map((token) => `<${token}>`).join("");
  const draws = { doSample: true, temperature: 2, topK: 0, seed: 3 };
  const run = async (
    options: Partial<typeof generationDefaults>,
  ): Promise<Continuation & { readonly shown: string }> => {
    let shown = "";
    const [row] = await generator.generate(
      [Int32Array.from([5, 9, 11])],
      { ...generationDefaults, maxNewTokens: 10, ...draws, ...options },
      { decode, onText: (_, piece) => (shown += piece) },
    );
    return { ...(row as Continuation), shown };
  };
  try {
    const whole = await run({});
    assert.equal(whole.finish, "length");
    assert.equal(whole.tokens.length, 10);
    assert.equal(whole.shown, whole.text);
    const [first, second, third] = whole.tokens as unknown as [number, number, number];
    const ended = await run({ endTokenIds: [third] });
    assert.deepEqual([ended.finish, [...ended.tokens]], ["end-token", [first, second]]);
    // The stop string spans two tokens, and none of it is shown.
    const stopped = await run({ stopStrings: [`${second}><${third}`] });
    assert.equal(stopped.finish, "stop-string");
    assert.equal(stopped.text, `<${first}><`);
    assert.equal(stopped.shown, stopped.text);
    assert.equal(stopped.tokens.length, 3);
  } finally {
    generator.close();
  }
});

test("what does not fit is refused before anything runs", async () => {
  await assert.rejects(openGenerator("qwen3", { maxLength: 65 }), { code: "E_SEQUENCE_TOO_LONG" });
  const generator = await openGenerator("qwen3", { maxLength: 12 });
  try {
    const options = { ...generationDefaults, maxNewTokens: 10 };
    await assert.rejects(generator.generate([Int32Array.from([5, 9, 11])], options), {
      code: "E_GENERATION_TOO_LONG",
    });
    await assert.rejects(generator.generate([new Int32Array(0)], options), {
      code: "E_GENERATION_TOO_LONG",
    });
  } finally {
    generator.close();
  }
});
