import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { countGpus, openDeviceTelemetry, parseGpuLine } from "#worker/telemetry";

/** A stand-in for nvidia-smi: two cards; with --loop-ms a second, different reading follows. */
const standIn = `#!/bin/sh
case "$*" in
  *--list-gpus*) echo "GPU 0: Card (UUID: a)"; echo "GPU 1: Card (UUID: b)" ;;
  *compute_cap*--id=1*) echo "7.5" ;;
  *compute_cap*) echo "8.0" ;;
  *--loop-ms*) echo "Card A, 550.54, 20, 1024, 8192"; echo "Card A, 550.54, 90, 4096, 8192"; exec sleep 60 ;;
  *--id=1*) echo "Card B, 550.54, 10, 512, 8192" ;;
  *) echo "Card A, 550.54, 10, 512, 8192" ;;
esac
`;

test("a line of nvidia-smi, with fields that a card lacks, and one that is no reading", () => {
  assert.deepEqual(parseGpuLine("NVIDIA H100, 550.54.15, 37, 1024, 81559"), {
    name: "NVIDIA H100",
    driver: "550.54.15",
    utilization: 0.37,
    memoryUsedBytes: 1024 * 2 ** 20,
    memoryTotalBytes: 81_559 * 2 ** 20,
  });
  assert.equal(parseGpuLine("Card, 1, [N/A], [Not Supported], 10")?.utilization, 0);
  assert.equal(parseGpuLine("No devices were found"), undefined);
});

test("a GPU is found, read again and again, and hidden when asked", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-smi-"));
  t.after(() => rm(directory, { recursive: true }));
  const nvidiaSmi = join(directory, "nvidia-smi");
  await writeFile(nvidiaSmi, standIn);
  await chmod(nvidiaSmi, 0o755);
  assert.equal(await countGpus(nvidiaSmi), 2);
  const gpu = await openDeviceTelemetry({ nvidiaSmi });
  t.after(() => gpu.close());
  assert.equal(gpu.deviceType, "gpu");
  assert.equal(gpu.deviceKind, "gpu/Card A/driver 550.54");
  while (gpu.read().utilization !== 0.9) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(gpu.read().memoryUsedBytes, 4096 * 2 ** 20);
  const second = await openDeviceTelemetry({ nvidiaSmi, visibleDevices: "1,0" });
  second.close();
  assert.equal(second.deviceKind, "gpu/Card B/driver 550.54");
  // Ampere has products of both half types, Turing of float16 alone.
  assert.deepEqual([gpu.hasBf16Products, gpu.hasFp16Products], [true, true]);
  assert.deepEqual([second.hasBf16Products, second.hasFp16Products], [false, true]);
  for (const hidden of [{ useCpu: true }, { visibleDevices: "" }, { visibleDevices: "-1" }]) {
    assert.equal((await openDeviceTelemetry({ nvidiaSmi, ...hidden })).deviceType, "cpu");
  }
});

test("without nvidia-smi the processor is the device", async () => {
  const nvidiaSmi = join(tmpdir(), "there-is-no-such-program");
  assert.equal(await countGpus(nvidiaSmi), 0);
  const cpu = await openDeviceTelemetry({ nvidiaSmi });
  assert.equal(cpu.deviceType, "cpu");
  assert.match(cpu.deviceKind, /^cpu\//);
  assert.equal(cpu.hasFp16Products, false);
  const { utilization, memoryUsedBytes, memoryTotalBytes } = cpu.read();
  assert.ok(utilization >= 0 && utilization <= 1);
  assert.ok(memoryUsedBytes > 1e7 && memoryUsedBytes < memoryTotalBytes);
});
