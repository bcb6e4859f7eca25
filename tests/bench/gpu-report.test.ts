import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gpuTable, modelFlopUtilisation } from "#bench/gpu-report";
import { packageRoot } from "#lib/core/paths";

test("MFU counts weights and attention, forward once and backward twice", () => {
  const model = { numParameters: 1_000_000, numLayers: 2, width: 50 };
  // A sequence of 100: 2e8 for weights, 4e6 for attention, thrice; 10 sequences at 1 TFLOP/s.
  assert.equal(modelFlopUtilisation(model, 100, 10, 1), 0.00612);
});

test("the table shows medians over a name's processes", () => {
  const line = (name: string, mib: number, step: number) =>
    `${name}\t${mib}\t{"values": {"step-8x1024": ${step}, "micro-batch-8x1024": ${step / 2}}}`;
  const lines = [line("ours", 2048, 0.2), line("torch", 4096, 1), line("ours", 1024, 0.4)];
  const [, , ours, torch, ...rest] = gpuTable([...lines, line("ours", 3072, 0.3)], 100).split("\n");
  assert.match(ours ?? "", /^\| ours \| 150\.0 \| 300\.0 \| 27307 \| \d+\.\d % \| 2\.0 \|$/);
  assert.match(torch ?? "", /^\| torch \| 500\.0 \| 1000\.0 \| 8192 \| \d+\.\d % \| 4\.0 \|$/);
  assert.deepEqual(rest, []);
});

test("without a GPU bench/gpu.sh says so in one line", async () => {
  // A directory of links to what the script needs before it looks for the GPU, and no nvidia-smi.
  const tools = await mkdtemp(join(tmpdir(), "lockstep-no-gpu-"));
  try {
    await symlink("/usr/bin/dirname", join(tools, "dirname"));
    const script = join(packageRoot, "bench/gpu.sh");
    const options = { encoding: "utf8", env: { PATH: tools } } as const;
    const { status, stderr, stdout } = spawnSync("/bin/bash", [script], options);
    assert.equal(status, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /^gpu\.sh: there is no NVIDIA GPU [^\n]*\n$/);
  } finally {
    await rm(tools, { recursive: true });
  }
});
