import assert from "node:assert/strict";
import { test } from "node:test";
import { engineEnvironment } from "#lib/core/engine-environment";

const decisive = (env: Readonly<Record<string, string>>) => engineEnvironment(env);

test("without anything set, everything that decides the bits is", () => {
  const { values, overruled } = decisive({ PATH: "/bin" });
  assert.deepEqual(overruled, []);
  assert.equal(values["TF_ENABLE_ONEDNN_OPTS"], "1");
  assert.equal(values["TF_DETERMINISTIC_OPS"], "1");
  assert.equal(values["NVIDIA_TF32_OVERRIDE"], "0");
  assert.equal("PATH" in values, false);
});

for (const [name, value] of [
  ["TF_ENABLE_ONEDNN_OPTS", "0"],
  ["TF_XLA_FLAGS", "--tf_xla_auto_jit=2"],
  ["TF_DETERMINISTIC_OPS", "0"],
  ["TF_SET_ONEDNN_FPMATH_MODE", "BF16"],
  ["ONEDNN_DEFAULT_FPMATH_MODE", "ANY"],
  ["DNNL_DEFAULT_FPMATH_MODE", "TF32"],
  ["ONEDNN_CPU_ISA_HINTS", "PREFER_YMM"],
  ["XLA_FLAGS", "--xla_cpu_enable_fast_math=true"],
  ["NVIDIA_TF32_OVERRIDE", "1"],
  ["CUBLAS_WORKSPACE_CONFIG", ":16:8"],
  ["TF_SOMETHING_OF_A_COMING_VERSION", "1"],
] as const) {
  test(`${name} has no effect, and that is said`, () => {
    const { values, overruled } = decisive({ [name]: value });
    const without = decisive({}).values;
    assert.equal(values[name], without[name]);
    assert.ok(name in values, "it stays as it is");
    assert.equal(overruled.length, 1);
    assert.match(overruled[0] ?? "", new RegExp(`^${name}=`));
  });
}

test("logs, dumps, threads and Terraform's variables are for whoever sets them", () => {
  const env = {
    TF_CPP_MIN_LOG_LEVEL: "0",
    ONEDNN_VERBOSE: "1",
    TF_NUM_INTRAOP_THREADS: "2",
    XLA_FLAGS: "--xla_dump_to=dumps",
    TF_VAR_region: "eu",
    TF_CLI_CONFIG_FILE: "terraform.rc",
  };
  const { values, overruled } = decisive(env);
  assert.deepEqual(overruled, []);
  assert.equal(values["TF_CPP_MIN_LOG_LEVEL"], "0");
  assert.equal("ONEDNN_VERBOSE" in values, false);
  assert.equal("TF_NUM_INTRAOP_THREADS" in values, false);
  assert.match(values["XLA_FLAGS"] ?? "", /--xla_dump_to=dumps$/);
});

test("of several flags of XLA those that decide the bits go, the others stay", () => {
  const { values, overruled } = decisive({
    XLA_FLAGS: "--xla_dump_to=dumps --xla_cpu_enable_fast_math=true",
  });
  assert.doesNotMatch(values["XLA_FLAGS"] ?? "", /fast_math/);
  assert.match(values["XLA_FLAGS"] ?? "", /--xla_dump_to=dumps/);
  assert.match(overruled[0] ?? "", /^XLA_FLAGS=--xla_cpu_enable_fast_math=true of/);
});

test("what is set once is not told again by a process that inherits it", () => {
  const { values } = decisive({});
  const inherited = Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  assert.deepEqual(decisive(inherited).overruled, []);
  assert.deepEqual(decisive(inherited).values, values);
});

test("compiled functions are kept where a test run says, apart by ceiling and threads", () => {
  const flagOf = (env: Record<string, string>): string | undefined =>
    engineEnvironment(env).values["TF_XLA_FLAGS"];
  assert.equal(flagOf({}), undefined);
  const LOCKSTEP_XLA_CACHE = "kept";
  const flags = [
    flagOf({ LOCKSTEP_XLA_CACHE }),
    flagOf({ LOCKSTEP_XLA_CACHE, ONEDNN_MAX_CPU_ISA: "AVX2" }),
    flagOf({ LOCKSTEP_XLA_CACHE, TF_NUM_INTRAOP_THREADS: "2" }),
    flagOf({ LOCKSTEP_XLA_CACHE, TF_NUM_INTRAOP_THREADS: "3" }),
  ];
  assert.ok(flags.every((flag) => flag?.startsWith("--tf_xla_persistent_cache_directory=kept/")));
  assert.equal(new Set(flags).size, flags.length);
  // A process that another one with other threads started.
  const inherited = { LOCKSTEP_XLA_CACHE, TF_NUM_INTRAOP_THREADS: "3", TF_XLA_FLAGS: flags[2] };
  assert.equal(engineEnvironment(inherited).values["TF_XLA_FLAGS"], flags[3]);
  assert.deepEqual(engineEnvironment(inherited).overruled, []);
});
