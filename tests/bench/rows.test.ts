/** The table's rows on processors with and without products of bfloat16, and what `--help` says of them. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Command } from "#bench/frame/experiment";
import { peersCeiling } from "#bench/frame/peers-python";
import type { Workspace } from "#bench/frame/workspace";
import { experimentsIn } from "#bench/rows/index";
import { packageRoot } from "#lib/core/paths";

/** Commands without what they would need on disk. */
const dry = {
  ours: (script: string, ...args: string[]): Command => ({ file: `${script}.ts`, args }),
  peer: (script: string, ...args: string[]): Command => ({ file: `peers/${script}.py`, args }),
  path: (name: string) => `/${name}`,
  model: async (name: string) => `/${name}`,
  once: async (name: string) => `/${name}`,
} as unknown as Workspace;

for (const precision of ["bf16", "fp32"] as const) {
  test(`every name of the table in ${precision} means one thing`, () => {
    const experiments = experimentsIn(precision);
    const rows = experiments.flatMap((experiment) => experiment.rows.map(({ name }) => name));
    assert.equal(new Set(rows).size, rows.length);
    for (const { rows: own, peer } of experiments) {
      for (const { name, withoutPeer } of own) {
        assert.ok(
          withoutPeer === true || peer !== undefined,
          `${name} has a peer or says it has none`,
        );
      }
    }
  });

  test(`both sides of a row in ${precision} are told so, by an option that they have`, async () => {
    for (const { name, rows, ours, peer } of experimentsIn(precision)) {
      const named = rows.find(({ what }) => /bf16|fp32/.test(what));
      if (named === undefined || named.withoutPeer === true) continue;
      const expected = name === "step-fp32" ? "fp32" : precision;
      assert.match(named.what, new RegExp(expected));
      for (const command of [await ours(dry, 0), await peer?.(dry, 0)]) {
        assert.ok(command !== undefined);
        const { file, args } = command;
        assert.equal(args[args.indexOf("--precision") + 1], expected, `${name}: ${file}`);
        const text = readFileSync(join(packageRoot, "bench", file), "utf8");
        assert.match(text, file.endsWith(".py") ? /"--precision"/ : /precision: \{/, file);
      }
    }
  });
}

test("in fp32 no row with a peer speaks of bf16, and the step stands once", () => {
  const rows = experimentsIn("fp32").flatMap((experiment) => experiment.rows);
  const bf16 = rows.filter(({ what, withoutPeer }) => /bf16/.test(what) && withoutPeer !== true);
  assert.deepEqual(bf16, []);
  assert.equal(rows.filter(({ name }) => /^step-(fp32-)?2x512$/.test(name)).length, 1);
});

test("torch is held to the engine's ceiling", () => {
  const ceilingOf = (flags: string, ceiling?: string) =>
    peersCeiling({ flags: new Set(flags.split(" ")), ceiling });
  assert.deepEqual(ceilingOf("avx avx2 avx512f avx512_bf16"), {});
  assert.deepEqual(ceilingOf("avx avx2", "AVX2"), {
    ONEDNN_MAX_CPU_ISA: "AVX2",
    ATEN_CPU_CAPABILITY: "avx2",
    MKL_ENABLE_INSTRUCTIONS: "AVX2",
  });
  assert.equal(ceilingOf("avx avx2 avx512f", "AVX512_CORE")["ATEN_CPU_CAPABILITY"], "avx512");
  assert.equal(ceilingOf("sse4_1", "SSE41")["ATEN_CPU_CAPABILITY"], "default");
});

function runBench(...args: string[]) {
  // Nothing of the peers is there.
  const env = { PATH: "", LOCKSTEP_PYTHON_PEERS: "/nowhere", ONEDNN_MAX_CPU_ISA: "AVX2" };
  const options = { encoding: "utf8", timeout: 20_000, env } as const;
  return spawnSync(process.execPath, [join(packageRoot, "dist/bench/run.js"), ...args], options);
}

test("--help lists options and rows with their bars here, and measures nothing", () => {
  const { status, stdout, stderr } = runBench("step", "--help");
  assert.deepEqual([status, stderr], [0, ""]);
  for (const option of ["--pairs", "--json", "--record", "--prefix"]) {
    assert.match(stdout, new RegExp(`^  ${option} `, "m"));
  }
  for (const { name, rows } of experimentsIn("fp32")) {
    for (const row of rows) assert.match(stdout, new RegExp(`^  ${name} +${row.name} +[<>]=`, "m"));
  }
  assert.match(stdout, /in fp32:/);
  assert.match(stdout, /step-2x512 +<= 0\.82$/m);
});

test("what it cannot read ends in one line and status 2", () => {
  for (const args of [["--pair", "3"], ["--pairs", "many"], ["stepp"]]) {
    const { status, stderr } = runBench(...args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, /^bench: [^\n]*\n$/);
  }
});
