import { connect, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions } from "node:tls";

/** Opens connections as fast as the machine lets it, sends the same bytes on each, and holds what stays open. */
export interface FloodOptions {
  readonly ports: readonly number[];
  readonly numConnections: number;
  /** Sent on each, once it is open. */
  readonly bytes: Buffer;
  /** Set: TLS, with this. */
  readonly tls?: ConnectionOptions;
  /** At once on their way. @default 200 */
  readonly numOpening?: number;
}

export interface Flood {
  /** Lets go of the connections that the other side has not closed. */
  readonly end: () => void;
}

export async function flood(options: FloodOptions): Promise<Flood> {
  const { ports, numConnections, bytes, tls, numOpening = 200 } = options;
  const held = new Set<Socket>();
  let next = 0;
  const open = async (): Promise<void> => {
    while (next < numConnections) {
      const port = ports[next++ % ports.length] ?? 0;
      await new Promise<void>((resolve) => {
        const target = { host: "127.0.0.1", port };
        const socket = tls === undefined ? connect(target) : connectTls({ ...target, ...tls });
        held.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          held.delete(socket);
          resolve();
        });
        socket.resume();
        socket.once(tls === undefined ? "connect" : "secureConnect", () =>
          socket.write(bytes, () => resolve()),
        );
      });
    }
  };
  await Promise.all(Array.from({ length: numOpening }, open));
  return {
    end: () => {
      for (const socket of held) socket.destroy();
    },
  };
}

const frame = (type: number, flags: number, streamId: number, payload: Buffer): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
};

/** A header that is not in a table: HPACK's literal with a new name. */
const literal = (name: string, value: string): Buffer =>
  Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]);

const [dataFrame, headersFrame, settingsFrame] = [0, 1, 4];
const endHeaders = 4;
/** HPACK's static table: `:method: POST`, `:scheme: http`. */
const postHttp = Buffer.from([0x83, 0x86]);

/**
 * What a gRPC client sends of a call whose message does not end.
 *
 * @param sentBytes of the message, on each stream
 */
export function unfinishedCall(options: {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly announcedBytes: number;
  readonly sentBytes: number;
  /** @default 1 */
  readonly numStreams?: number;
}): Buffer {
  const { path, headers = {}, announcedBytes, sentBytes, numStreams = 1 } = options;
  const parts = [
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    frame(settingsFrame, 0, 0, Buffer.alloc(0)),
  ];
  for (let stream = 0; stream < numStreams; stream++) {
    const id = 2 * stream + 1;
    const fields = {
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    };
    const block = [
      postHttp,
      ...Object.entries(fields).map(([name, value]) => literal(name, value)),
    ];
    parts.push(frame(headersFrame, endHeaders, id, Buffer.concat(block)));
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(announcedBytes, 1);
    parts.push(frame(dataFrame, 0, id, prefix));
    for (let left = sentBytes; left > 0; left -= 16_384) {
      parts.push(frame(dataFrame, 0, id, Buffer.alloc(Math.min(left, 16_384))));
    }
  }
  return Buffer.concat(parts);
}
