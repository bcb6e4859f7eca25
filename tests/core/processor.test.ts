import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  hasBf16Products,
  hasOneDnnBf16,
  processorKind,
  readProcessor,
  xlaCeiling,
} from "#lib/core/processor";

const root = mkdtempSync(join(tmpdir(), "lockstep-processor-"));
after(() => rmSync(root, { recursive: true, force: true }));

const flagsOf = {
  laptop: "fpu sse4_1 avx avx2 fma bmi2",
  server: "fpu sse4_1 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni",
  newServer:
    "fpu sse4_1 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16",
} as const;

/** A tree with the files of a processor that has these flags. */
function machine(name: keyof typeof flagsOf, l2 = "1024K"): string {
  const tree = join(root, `${name}-${l2}`);
  mkdirSync(join(tree, "proc"), { recursive: true });
  const core = (index: number): string =>
    `processor\t: ${index}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n` +
    `model name\t: with avx512f\nflags\t\t: ${flagsOf[name]}\n`;
  writeFileSync(join(tree, "proc/cpuinfo"), `${core(0)}\n${core(1)}`);
  for (const [index, size] of ["32K", "32K", l2].entries()) {
    const directory = join(tree, `sys/devices/system/cpu/cpu0/cache/index${index}`);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "size"), `${size}\n`);
  }
  return tree;
}

test("which processors multiply bfloat16, and for which oneDNN has kernels of it", () => {
  const facts = (name: keyof typeof flagsOf, env = {}) => {
    const processor = readProcessor(env, machine(name));
    return [hasOneDnnBf16(processor), hasBf16Products(processor)];
  };
  assert.deepEqual(facts("laptop"), [false, false]);
  assert.deepEqual(facts("server"), [true, false]);
  assert.deepEqual(facts("newServer"), [true, true]);
  assert.deepEqual(facts("newServer", { ONEDNN_MAX_CPU_ISA: "AVX512_CORE_BF16" }), [true, true]);
  assert.deepEqual(facts("newServer", { ONEDNN_MAX_CPU_ISA: "avx512_core" }), [true, false]);
  assert.deepEqual(facts("newServer", { ONEDNN_MAX_CPU_ISA: "AVX2" }), [false, false]);
  assert.deepEqual(facts("newServer", { DNNL_MAX_CPU_ISA: "AVX2_VNNI" }), [false, false]);
});

test("a kind names what decides the bits, and the ceiling where it takes something away", () => {
  const kind = (name: keyof typeof flagsOf, env = {}, l2?: string): string =>
    processorKind(readProcessor(env, machine(name, l2)));
  assert.match(
    kind("laptop"),
    /^cpu\/\w+\/sse4_1\+avx\+avx2\+fma, GenuineIntel 6\.85, caches 32K 32K 1024K$/,
  );
  assert.equal(kind("laptop", { ONEDNN_MAX_CPU_ISA: "AVX512_CORE" }), kind("laptop"));
  assert.equal(kind("laptop", { ONEDNN_MAX_CPU_ISA: "ALL" }), kind("laptop"));
  assert.equal(kind("laptop", { ONEDNN_MAX_CPU_ISA: "" }), kind("laptop"));
  const limited = kind("server", { ONEDNN_MAX_CPU_ISA: "AVX2" });
  assert.match(limited, /\/sse4_1\+avx\+avx2\+fma, .*, ONEDNN_MAX_CPU_ISA=AVX2$/);
  assert.notEqual(limited, kind("laptop"));
  assert.notEqual(kind("server", {}, "2048K"), kind("server", {}, "1024K"));
});

test("a ceiling that oneDNN does not know is refused, since it would be ignored", () => {
  assert.throws(
    () => readProcessor({ ONEDNN_MAX_CPU_ISA: "AVX3" }, machine("server")),
    (error: Error & { code?: string }) =>
      error.code === "E_ENGINE_ENVIRONMENT" && /ONEDNN_MAX_CPU_ISA is AVX3/.test(error.message),
  );
});

test("a machine without /proc or /sys has a kind too", () => {
  const processor = readProcessor({}, join(root, "nowhere"));
  assert.match(processorKind(processor), /^cpu\/\w+\/baseline, ./);
  assert.equal(hasBf16Products(processor), false);
});

test("XLA has a name for every ceiling", () => {
  const names = ["SSE41", "AVX", "AVX2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_AMX"];
  const xla = ["SSE4_2", "AVX", "AVX2", "AVX512", "AVX512_BF16", "AMX"];
  assert.deepEqual(names.map(xlaCeiling), xla);
});
