import type { Server, Socket } from "node:net";

/**
 * The TCP connections that a server has accepted, whatever they have got to: one that never says a word, or that is
 * half through a TLS handshake or an HTTP/2 preface, is no request and no session yet, so `close` of the servers
 * built on top does not know of it, and it would keep the process alive.
 */
export class OpenSockets {
  readonly #sockets = new Set<Socket>();

  /** @param server one that has accepted nothing yet; of a TLS server these are the sockets below the handshake */
  constructor(server: Pick<Server, "on">) {
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  destroyAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
