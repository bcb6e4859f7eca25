import assert from "node:assert/strict";
import { test } from "node:test";
import { isSettled, parseFlags, settleConfig } from "#lib/config/index";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";

const base = "model_name_or_path: m\ndataset: sotu\n";

function resolve(yaml: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(base + yaml, "job.yaml"), flags.values, { cpuCount: 8 });
}

test("bf16: auto stays open until a device has said what it is, and the wire type with it", () => {
  for (const { config } of [
    resolve("bf16: auto"),
    resolve("", "--bf16", "auto"),
    resolve("bf16: false", "--bf16=auto"),
  ]) {
    assert.deepEqual([config.bf16, config.wire_dtype], ["auto", null]);
    assert.equal(isSettled(config), false);
    const settled = [true, false].map((bf16) => settleConfig(config, { bf16, fp16: true }));
    assert.deepEqual(
      settled.map(({ bf16, fp16, wire_dtype }) => [bf16, fp16, wire_dtype]),
      [
        [true, false, "bfloat16"],
        [false, false, "float32"],
      ],
    );
  }
  const { config: adapters } = resolve("bf16: auto\nuse_peft: true");
  assert.equal(settleConfig(adapters, { bf16: true, fp16: false }).wire_dtype, "float32");
  const { config: forced } = resolve("bf16: auto\nwire_dtype: bfloat16");
  assert.throws(() => settleConfig(forced, { bf16: false, fp16: false }), {
    code: "E_CONFIG_CONFLICT",
  });
  const { config: decided } = resolve("bf16: false");
  assert.equal(settleConfig(decided, { bf16: true, fp16: true }), decided);
});

test("fp16: auto is a device's answer where bf16 is not chosen, and its type is the wire's", () => {
  const all = [
    { bf16: true, fp16: true },
    { bf16: false, fp16: true },
    { bf16: false, fp16: false },
  ];
  const outcomes = (yaml: string): unknown[] =>
    all.map((device) => {
      const { bf16, fp16, wire_dtype } = settleConfig(resolve(yaml).config, device);
      return [bf16, fp16, wire_dtype];
    });
  const [inBf16, inFp16, inFp32] = [
    [true, false, "bfloat16"],
    [false, true, "float16"],
    [false, false, "float32"],
  ];
  assert.deepEqual(outcomes("bf16: auto\nfp16: auto"), [inBf16, inFp16, inFp32]);
  assert.deepEqual(outcomes("fp16: auto"), [inFp16, inFp16, inFp32]);
  assert.deepEqual(outcomes("bf16: auto\nfp16: true"), [inFp16, inFp16, inFp16]);
  assert.deepEqual(outcomes("bf16: true\nfp16: auto"), [inBf16, inBf16, inBf16]);
  assert.equal(resolve("", "--fp16").config.wire_dtype, "float16");
  assert.equal(resolve("", "--fp16", "auto").config.wire_dtype, null);
  assert.equal(resolve("fp16: true\nuse_peft: true").config.wire_dtype, "float32");
  for (const yaml of [
    "fp16: true\nwire_dtype: bfloat16",
    "bf16: auto\nfp16: true\nwire_dtype: bfloat16",
    "bf16: true\nwire_dtype: float16",
    "wire_dtype: float16",
  ]) {
    assert.throws(() => resolve(yaml), { code: "E_CONFIG_CONFLICT" }, yaml);
  }
});
