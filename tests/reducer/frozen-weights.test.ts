import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import {
  buildParameterLayout,
  type ElementRange,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { readWireSpace, sharedWireSpace } from "#lib/core/wire-space";
import { decodePullRequest, encodePullRequest } from "#lib/wire/bulk-protocol";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { startShardThread } from "#coordinator/reducer/client";
import { ShardGroup, type ShardSource } from "#coordinator/shards";
import { testValues } from "#tests/support/compare";
import { readSlot } from "#tests/support/tiny-llama";
import { ShardTransfers } from "#worker/transfers";
import { adamW } from "./gradients.js";
import { admitTo, passOf, testLife } from "#tests/support/members";

const trained = buildParameterLayout([{ name: "lora_A", shape: [3, 70_000] }], "float32");
// A matrix over several shards and chunks, and a vector in the float32 region.
const frozen = buildParameterLayout(
  [
    { name: "matrix", shape: [900, 1000] },
    { name: "vector", shape: [33] },
  ],
  "bfloat16",
);
const trainedVersion = 4;
const valuesOf = new Map(frozen.tensors.map(({ name, size }) => [name, testValues(size, size)]));

async function load(range: ElementRange, into: Float32Array): Promise<void> {
  for (const { name, offset, size } of frozen.tensors) {
    for (let i = Math.max(range.start, offset); i < Math.min(range.end, offset + size); i++) {
      into[i - range.start] = valuesOf.get(name)?.[i - offset] as number;
    }
  }
}

/** A worker's connections to shards that end with the test. */
async function connected(
  t: TestContext,
  numShards: number,
  served?: { readonly layout: typeof frozen; readonly wireBytes: Uint8Array<SharedArrayBuffer> },
  masters: (index: number) => number = () => 0,
): Promise<ShardTransfers> {
  const shards = await ShardGroup.start(startShardThread, {
    ...{
      optimizer: adamW,
      listenHost: "127.0.0.1",
      gradientGroups: 1,
      security: {},
      life: testLife,
      numShards,
      layout: trained,
    },
    ...(served === undefined
      ? {}
      : { frozen: { layout: served.layout, wireBytes: async () => served.wireBytes } }),
  });
  const fill: ShardSource["fill"] = async ({ range, masters: into }) => {
    for (let i = range.start; i < range.end; i++) into[i - range.start] = masters(i);
  };
  await shards.load({ fill }, trainedVersion);
  const addresses = shards.addresses();
  await admitTo(shards);
  const security = {};
  const transfers = new ShardTransfers({ layout: trained, addresses, security, pass: passOf() });
  t.after(async () => {
    transfers.close();
    await shards.close();
  });
  return transfers;
}

test("a worker pulls the frozen weights from all shards, the matrices in bfloat16", async (t) => {
  const wireBytes = await readWireSpace(frozen, load);
  const transfers = await connected(t, 3, { layout: frozen, wireBytes });
  const pulled = sharedWireSpace(frozen);
  const pull = async (start: number, end: number): Promise<void> => {
    const part = pulled.subarray(wireOffsetBytes(frozen, start), wireOffsetBytes(frozen, end));
    await transfers.pullFrozen(frozen, { start, end }, part, { onRetry: () => {} });
  };
  // In two halves that end within a shard's range, and then all at once.
  for (const bounds of [
    [0, 500_000, frozen.numElements],
    [0, frozen.numElements],
  ]) {
    pulled.fill(0);
    for (const [i, end] of bounds.entries()) if (i > 0) await pull(bounds[i - 1] as number, end);
    assert.deepEqual(pulled, wireBytes);
  }
  for (const [name, values] of valuesOf) {
    const tolerance = name === "matrix" ? 2 ** -8 : 0;
    for (const [i, value] of readSlot(frozen, name, pulled).entries()) {
      const exact = values[i] as number;
      assert.ok(Math.abs(value - exact) <= tolerance * Math.abs(exact), `${name}[${i}]`);
    }
  }
});

test("a worker pulls a version of what is trained range by range, across the shards", async (t) => {
  const transfers = await connected(t, 3, undefined, (index) => index + 0.5);
  const { numElements } = trained;
  const bounds = [0, 32, 70_016, 140_000, numElements];
  for (const [i, end] of bounds.entries()) {
    const range = { start: bounds[i - 1] ?? 0, end };
    const pulled = new Float32Array(new SharedArrayBuffer((range.end - range.start) * 4));
    const into = new Uint8Array(pulled.buffer);
    await transfers.pull(trainedVersion, range, into, { onRetry: () => {} });
    assert.deepEqual(
      pulled,
      Float32Array.from(pulled, (_, at) => range.start + at + 0.5),
    );
  }
  const whole = { start: 0, end: numElements };
  await assert.rejects(
    transfers.pull(trainedVersion + 1, whole, sharedWireSpace(trained), { onRetry: () => {} }),
    (error) => remoteErrorCode(error) === "E_VERSION_NOT_PUBLISHED",
  );
});

test("a job without frozen weights has no such version", async (t) => {
  const transfers = await connected(t, 1);
  const range = { start: 0, end: frozen.numElements };
  await assert.rejects(
    transfers.pullFrozen(frozen, range, sharedWireSpace(frozen), { onRetry: () => {} }),
    (error) => remoteErrorCode(error) === "E_VERSION_NOT_PUBLISHED",
  );
});

test("a pull names its space, and one of a space that there is not is refused", () => {
  const part = { offset: 128, numBytes: 2 ** 33 };
  for (const space of ["trained", "frozen", "kept", "sum", "masters", "average"] as const) {
    for (const request of [
      { space, version: 0xffff_ffff },
      { space, version: 7, part },
    ]) {
      assert.deepEqual(decodePullRequest(encodePullRequest(request)), request);
    }
  }
  assert.equal(decodePullRequest(encodePullRequest({ version: 7 })).space, "trained");
  const unknown = encodePullRequest({ version: 7 });
  unknown.writeUInt32LE(6, 4);
  for (const bytes of [unknown, unknown.subarray(0, 8), Buffer.alloc(0)]) {
    assert.throws(() => decodePullRequest(bytes), { code: "E_FRAME_INVALID" });
  }
});
