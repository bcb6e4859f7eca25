import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { testJob } from "#tests/support/cluster";
import createLightEngine from "#tests/support/light-engine";
import { runProgram } from "#tests/support/run-program";

test("no process of a run with shards in processes has a copy of the model's state", async () => {
  const program = join(packageRoot, "dist/bench/shards/run.js");
  const { code, stdout, stderr } = await runProgram(process.execPath, [program, "tiny"]);
  assert.equal(code, 0, stdout + stderr);
  const { stateMb, isSame, isKept, peaks } = JSON.parse(
    stdout.trimEnd().split("\n").at(-1) ?? "",
  ) as {
    readonly stateMb: number;
    readonly isSame: boolean;
    readonly isKept: boolean;
    readonly peaks: readonly { readonly name: string; readonly peakMb: number }[];
  };
  assert.ok(isSame && isKept);
  const coordinators = peaks.filter(({ name }) => name === "coordinator");
  assert.equal(coordinators.length, 2);
  for (const { peakMb } of coordinators) assert.ok(peakMb < stateMb, `${peakMb} MB`);
});

test("the gradients that such a run is measured with are finite and differ by batch", async () => {
  const engine = await createLightEngine(testJob);
  const gradientOf = (token: number): Uint16Array => {
    const fields = { tokens: Int32Array.of(token, 2), targets: Int32Array.of(2, 3) };
    const wire = new Uint8Array(wireSizeBytes(testJob.layout));
    engine.accumulate({ numRows: 1, fields }, 1, true, wire);
    return new Uint16Array(wire.buffer);
  };
  const first = gradientOf(5);
  assert.notDeepEqual(first, gradientOf(6));
  assert.ok(first.every((word) => (word & 0x7f80) !== 0x7f80));
  engine.close();
});
