import assert from "node:assert/strict";
import { test } from "node:test";
import { ReducerProcess } from "#reducer/reducer-process";
import type { ShardCommand } from "#lib/wire/reducer-messages";
import { testLife } from "#tests/support/members";
import { freePorts } from "#tests/support/ports";
import { adamW, smallLayout } from "./gradients.js";

test("what fills a shard ends before it begins anew", async () => {
  const layout = smallLayout(1, "bfloat16");
  const reducer = new ReducerProcess({
    ...{ security: {}, log: () => {}, onFinished: () => {}, onNotice: () => {} },
    onTransferred: () => {},
  });
  const pass = { ...testLife, workerId: "", secret: "of the run's coordinators" };
  const status = await reducer.open(
    {
      ...{ shardIndex: 0, numShards: 1, layoutJson: JSON.stringify(layout), frozenJson: "" },
      ...{ optimizerJson: JSON.stringify(adamW), gradientGroups: 1 },
    },
    pass,
  );
  const order: string[] = [];
  const told = async (command: ShardCommand): Promise<void> => {
    await reducer.call(command, pass).catch(() => {});
    order.push(command.kind);
  };
  // Nobody is there, which takes it a while to find.
  const port = await freePorts(1);
  const peer = { ...testLife, address: `127.0.0.1:${port}`, name: "shard/0", secret: "" };
  await Promise.all([
    told({ kind: "takeState", status, peer }),
    told({ kind: "startOver" }),
    told({ kind: "status" }),
  ]);
  assert.deepEqual(order, ["status", "takeState", "startOver"]);
});
