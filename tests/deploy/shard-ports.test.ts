import assert from "node:assert/strict";
import { test } from "node:test";
import { ShardGroup, type ShardHandle, type StartShardOptions } from "#coordinator/shards";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { testLife } from "#tests/support/members";

const layout = buildParameterLayout([{ name: "w", shape: [1024, 1024] }], "float32");

async function portsFor(firstPort: number): Promise<readonly (number | undefined)[]> {
  const ports: (number | undefined)[] = [];
  const start = async ({ listenPort }: StartShardOptions): Promise<ShardHandle> => {
    ports.push(listenPort);
    return { address: `127.0.0.1:${listenPort}` } as ShardHandle;
  };
  await ShardGroup.start(start, {
    numShards: 3,
    layout,
    optimizer: { name: "adamw", settings: {} },
    listenHost: "127.0.0.1",
    gradientGroups: 1,
    security: {},
    life: testLife,
    firstPort,
  });
  return ports;
}

// Services and network policies name these ports.
test("reducer shards listen on consecutive ports from the first, or each on any free one", async () => {
  assert.deepEqual(await portsFor(50052), [50052, 50053, 50054]);
  assert.deepEqual(await portsFor(0), [0, 0, 0]);
});
