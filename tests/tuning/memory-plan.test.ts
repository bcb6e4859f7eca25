import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { besideEngine, besideWorkers, memoryLines } from "#run/memory-lines";
import type { PreparedRun } from "#run/prepared-run";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { packageRoot } from "#lib/core/paths";
import { GraphBuilder, type GraphTensor } from "#lib/graph/builder";
import { followValues } from "#lib/graph/memory-plan";
import { MemoryPool } from "#lib/graph/memory-pool";
import * as op from "#lib/graph/tf-ops";
import type { ChosenOptimizer } from "#lib/optim/index";

/**
 * Most bytes that the values of a program take at once, its fetches included: each from the node that
 * computes it to the last one that reads it. What kernels need inside, and what variables, constants and
 * feeds take, is not counted.
 */
function peakValueBytes(fetches: readonly GraphTensor[]): number {
  const bytesOf = new Map<GraphTensor, number>();
  let held = 0;
  let peak = 0;
  followValues(fetches, {
    allocate: (source, numBytes) => {
      bytesOf.set(source, numBytes);
      held += numBytes;
      peak = Math.max(peak, held);
    },
    takeOver: (source, from) => {
      bytesOf.set(source, bytesOf.get(from) ?? 0);
      bytesOf.delete(from);
    },
    free: (source) => {
      held -= bytesOf.get(source) ?? 0;
      bytesOf.delete(source);
    },
  });
  return peak;
}

test("values live until their last use, views and stored ones take nothing, fetches stay", () => {
  const graph = new GraphBuilder();
  const x = op.placeholder(graph, "x", "float32", [100]);
  const a = op.unary("Exp", x); // 400 bytes
  const b = op.cast(op.reshape(a, [10, 10]), "bfloat16"); // 200, a is not needed any more
  const c = op.unary("Exp", op.cast(b, "float32")); // 400 and 400
  assert.equal(peakValueBytes([b]), 600);
  assert.equal(peakValueBytes([c]), 800);
  // Both are kept: 200 + 400 + 400.
  assert.equal(peakValueBytes([b, c]), 1000);
  // The sum is written over the operand that is free then.
  assert.equal(peakValueBytes([op.add(a, x)]), 400);
});

test("a node waits for those that it names by a control edge", () => {
  const graph = new GraphBuilder();
  const x = op.placeholder(graph, "x", "float32", [100]);
  const wide = op.broadcastTo(x, [50, 100]);
  const narrow = op.reduce("Sum", wide, [0], false);
  const late = op.broadcastTo(x, [40, 100]);
  const out = op.add(op.reduce("Sum", late, [0], false), narrow);
  late.node.controlInputs.add(narrow.node);
  assert.equal(peakValueBytes([out]), 20_000 + 400);
});

test("the pool gives the best fit, splits and joins blocks, and keeps what was used", () => {
  const mebi = 2 ** 20;
  const pool = new MemoryPool();
  const take = (numMebi: number) => ({ numMebi, block: pool.allocate(numMebi * mebi) });
  const give = ({ numMebi, block }: ReturnType<typeof take>): void =>
    pool.free(block, numMebi * mebi);
  const used = (): number => pool.usedBytes / mebi;
  // A region of 8 that is taken whole, as a rest of less than the value stays with it; then one that is split.
  const [a, b, c] = [take(5), take(3), take(5)];
  assert.equal(used(), 13);
  assert.notEqual(a.block?.region, b.block?.region);
  assert.equal(b.block?.region, c.block?.region);
  give(b);
  give(c);
  // 3 and 5 are one block again, which has room for 4 and 4.
  const [d, e] = [take(4), take(4)];
  assert.equal(d.block?.region, b.block?.region);
  assert.equal(used(), 13);
  give(e);
  const f = take(3);
  assert.equal(f.block, e.block);
  // Nothing is free: a region of 16, of which 13 are left, and then one for 14.
  const [g, h] = [take(3), take(14)];
  assert.notEqual(g.block?.region, h.block?.region);
  assert.equal(used(), 13 + 3 + 14);
  [a, d, f, g, h].forEach(give);
  assert.equal(used(), 30);
  // What is small is not the pool's, and counts at its most.
  const small = [pool.allocate(100_000), pool.allocate(100_000)];
  small.forEach((block) => pool.free(block, 100_000));
  pool.free(pool.allocate(1000), 1000);
  assert.equal(pool.usedBytes, 30 * mebi + 200_000);
});

for (const point of ["kept fp32", "kept bf16", "checkpointing fp32", "lora bf16", "qlora fp32"]) {
  test(`a worker's peak memory is what was planned (${point})`, (t) => {
    if (process.platform !== "linux") return t.skip("the peak is read from /proc");
    const script = join(packageRoot, "dist/tests/support/memory-point.js");
    const { stdout, stderr, status } = spawnSync(process.execPath, [script, ...point.split(" ")], {
      encoding: "utf8",
      env: { ...process.env, TF_NUM_INTRAOP_THREADS: "2", TF_NUM_INTEROP_THREADS: "1" },
    });
    assert.equal(status, 0, stderr);
    const { plannedBytes, peakBytes, startBytes, wideBytes } = JSON.parse(stdout) as Record<
      "plannedBytes" | "peakBytes" | "startBytes" | "wideBytes",
      number
    >;
    const ratio = peakBytes / plannedBytes;
    t.diagnostic(`${peakBytes} of ${plannedBytes} bytes: ${ratio.toFixed(2)}`);
    // Too little planned is worse than too much: a job that should fit is killed.
    assert.ok(ratio > 0.75 && ratio < 1.1, `${peakBytes} bytes, ${plannedBytes} planned`);
    if (!point.startsWith("qlora")) return;
    // Weights of 4 bits are never there in float32 all at once, loading and first runs included.
    assert.ok(
      peakBytes - startBytes < 0.75 * wideBytes,
      `${peakBytes - startBytes} of ${wideBytes}`,
    );
  });
}

test("a person is warned where the memory will not do", () => {
  const need = {
    plannedBytes: 3 * 2 ** 30,
    memoryTotalBytes: 8 * 2 ** 30,
    deviceType: "cpu",
  } as const;
  assert.deepEqual(memoryLines(need), ["Memory: about 3.0 GiB a worker, of 8.0 GiB"]);
  const others = { numWorkers: 2, optimizerBytes: 2 ** 30, frozenBytes: 0 };
  assert.equal(memoryLines(need, others).length, 1);
  const [, warning] = memoryLines(need, { ...others, numWorkers: 3 });
  assert.match(warning ?? "", /^warning: about 10\.0 GiB are needed/);
  const [line, more] = memoryLines(need, { ...others, frozenBytes: 1.5 * 2 ** 30 });
  assert.match(line ?? "", /, 1\.0 GiB for the optimizer, 1\.5 GiB for the frozen weights, of 8/);
  assert.match(more ?? "", /^warning: about 8\.5 GiB are needed/);
  // Each has a GPU of its own.
  assert.equal(memoryLines({ ...need, deviceType: "gpu" }, { ...others, numWorkers: 9 }).length, 1);
});

test("what lies beside the workers follows from the optimizer, the wire's type and what is frozen", () => {
  const settings = { weightDecay: 0 };
  const sgd = (momentum: number) => ({
    ...{ name: "sgd", settings: { ...settings, momentum, dampening: 0, nesterov: false } },
  });
  const adamW = { name: "adamw", settings: { ...settings, beta1: 0.9, beta2: 0.999, epsilon: 0 } };
  const million = [{ name: "w", shape: [1024, 1024] }];
  const layoutOf = (dtype: "bfloat16" | "float32") => buildParameterLayout(million, dtype);
  const bytesOf = (optimizer: ChosenOptimizer, dtype: "bfloat16" | "float32", isLocal = false) => {
    const job = { layout: layoutOf(dtype), frozen: layoutOf("bfloat16") } as PreparedRun["job"];
    const updates = { optimizer, learningRateAt: () => 0, maxGradNorm: null };
    const run = { job, updates };
    const { optimizerBytes, frozenBytes } = isLocal ? besideEngine(run) : besideWorkers(run, 2);
    // Less than a MiB is for blocks that arrive.
    return [Math.floor(optimizerBytes / 2 ** 20), frozenBytes / 2 ** 20];
  };
  // A value: master and sum of 4 bytes, the states, and two versions on the wire.
  assert.deepEqual(bytesOf(adamW, "bfloat16"), [20, 2]);
  assert.deepEqual(bytesOf(adamW, "float32"), [24, 2]);
  assert.deepEqual(bytesOf(sgd(0.9), "bfloat16"), [16, 2]);
  assert.deepEqual(bytesOf(sgd(0), "float32"), [16, 2]);
  const adafactor = (beta1: number) => ({ name: "adafactor", settings: { ...settings, beta1 } });
  // 2 MiB are for sums of rows and columns.
  assert.deepEqual(bytesOf(adafactor(0), "bfloat16"), [12 + 2, 2]);
  assert.deepEqual(bytesOf(adafactor(0.9), "bfloat16"), [16 + 2, 2]);
  const in8bit = { name: "adamw_8bit", settings: adamW.settings };
  assert.deepEqual(bytesOf(in8bit, "bfloat16"), [14, 2]);
  // In one process the engine alone has the frozen weights.
  assert.deepEqual(bytesOf(sgd(0), "bfloat16", true), [12, 0]);
  assert.deepEqual(besideWorkers(undefined, 3), {
    ...{ numWorkers: 3, optimizerBytes: 0, frozenBytes: 0 },
  });
});
