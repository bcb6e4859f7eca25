import assert from "node:assert/strict";
import { after, test } from "node:test";
import { LockstepError } from "#lib/core/errors/index";
import { buildParameterLayout, wireSizeBytes } from "#lib/core/parameter-layout";
import { maxBulkMessageBytes, type PushOutcome } from "#lib/wire/bulk-protocol";
import { registerBulkService } from "#lib/wire/bulk-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import { ShardTransfers } from "#worker/transfers";

const ends: (() => unknown)[] = [];
after(async () => {
  for (const end of ends) await end();
});

const layout = buildParameterLayout([{ name: "w", shape: [100] }], "float32");

/** A shard that answers pushes one after the other with these; the last answer again and again. */
async function shardThat(answers: readonly (PushOutcome | "busy")[]): Promise<{
  readonly transfers: ShardTransfers;
  readonly numPushes: () => number;
}> {
  let numPushes = 0;
  const server = new GrpcServer({ security: {}, maxReceiveBytes: maxBulkMessageBytes });
  registerBulkService(server, {
    pushGradients: async (_meta, frames) => {
      let receivedBytes = 0;
      for await (const { payload } of frames) receivedBytes += payload.length;
      const outcome = answers[Math.min(numPushes++, answers.length - 1)] ?? "busy";
      if (outcome !== "busy") return { outcome, receivedBytes };
      throw new LockstepError("E_SHARD_BUSY", { step: 1, group: 2, maxAssemblies: 2 });
    },
    pullParameters: () => new Uint8Array(0),
  });
  const port = await server.listen("127.0.0.1", 0);
  const transfers = new ShardTransfers({
    layout,
    addresses: [`127.0.0.1:${port}`],
    security: {},
    pass: { runId: "r", epoch: 1, workerId: "w", secret: "s" },
  });
  ends.push(async () => {
    transfers.close();
    await server.close(0);
  });
  return { transfers, numPushes: () => numPushes };
}

const lease = { workerId: "w", step: 1, group: 2, lease: 3 };
const bytes = new Uint8Array(wireSizeBytes(layout));

test("a group that a shard cannot take yet waits as long as it takes", async () => {
  const { transfers, numPushes } = await shardThat([...Array(5).fill("busy"), "complete"]);
  let numRetries = 0;
  await transfers.push(lease, bytes, { onRetry: () => numRetries++ });
  assert.equal(numPushes(), 6);
  assert.equal(numRetries, 5);
});

test("it waits no longer than its lease counts", async () => {
  const { transfers, numPushes } = await shardThat([...Array(4).fill("busy"), "stale"]);
  await transfers.push(lease, bytes, { onRetry: () => {} });
  assert.equal(numPushes(), 5);
});

test("and no longer than its worker wants", async () => {
  const { transfers } = await shardThat(["busy"]);
  const stop = new AbortController();
  let numRetries = 0;
  await assert.rejects(
    transfers.push(lease, bytes, {
      signal: stop.signal,
      onRetry: () => {
        if (++numRetries === 4) stop.abort();
      },
    }),
    { code: "E_RPC_UNAVAILABLE" },
  );
});
