import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A port that leads to another one, until it is cut: then nothing passes, and nobody is told. */
export class CutWire {
  readonly port: number;
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets: Set<Socket>;
  readonly #state: { isCut: boolean };

  private constructor(
    server: ReturnType<typeof createServer>,
    sockets: Set<Socket>,
    state: { isCut: boolean },
  ) {
    this.#server = server;
    this.#sockets = sockets;
    this.#state = state;
    this.port = (server.address() as AddressInfo).port;
  }

  static async to(port: number): Promise<CutWire> {
    const sockets = new Set<Socket>();
    const state = { isCut: false };
    const server = createServer((near) => {
      sockets.add(near);
      near.on("error", () => {});
      if (state.isCut) return;
      const far = connect(port, "127.0.0.1");
      sockets.add(far);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on("data", (data) => {
          if (!state.isCut) to.write(data);
        });
        from.on("error", () => {});
        from.on("close", () => to.destroy());
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new CutWire(server, sockets, state);
  }

  cut(): void {
    this.#state.isCut = true;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
