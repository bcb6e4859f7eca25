import { workerData } from "node:worker_threads";
import { copyArrays } from "#lib/core/shard-arrays";
import { serveThread } from "#lib/core/thread-client";
import { frozenVersion, maxBulkMessageBytes } from "#lib/wire/bulk-protocol";
import { registerBulkService } from "#lib/wire/bulk-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import type { ShardAnswer, ShardNotice } from "#lib/wire/reducer-messages";
import { ShardService } from "./shard-service.js";
import {
  receivedBytesIndex,
  type ShardReady,
  type ShardThreadCommand,
  type ShardThreadOptions,
  sentBytesIndex,
} from "./thread-protocol.js";

/** Thread of one reducer shard: its arithmetic and its own gRPC server, on one event loop. */
await serveThread<ShardReady, ShardThreadCommand, ShardAnswer, ShardNotice>(async (notify) => {
  const options = workerData as ShardThreadOptions;
  const { security, listenHost, listenPort = 0, frozen, transferredBytes } = options;
  const shard = await ShardService.create({
    ...options,
    notify,
    onTransferred: (direction, payloadBytes) => {
      const index = direction === "sentBytes" ? sentBytesIndex : receivedBytesIndex;
      Atomics.add(transferredBytes, index, BigInt(payloadBytes));
    },
  });
  if (frozen !== undefined) shard.frozen.add(frozenVersion, frozen);
  const server = new GrpcServer({
    security,
    maxReceiveBytes: maxBulkMessageBytes,
    onHandled: (method, code, seconds) => notify({ type: "rpc", method, code, seconds }),
    onRefusedConnections: (reason, numConnections) =>
      notify({ type: "connectionsRefused", reason, numConnections }),
  });
  registerBulkService(server, shard);
  const port = await server.listen(listenHost, listenPort);
  const { masters, states } = shard.reducer.arithmetic;
  return {
    ready: { port, arrays: { masters, states } },
    handle: async (command) => {
      if (command.kind === "snapshot") copyArrays(shard.reducer.arithmetic, command.into);
      else if (command.kind === "close") await server.close();
      else return shard.handle(command);
      return { kind: "done" };
    },
    isLast: ({ kind }) => kind === "close",
  };
});
