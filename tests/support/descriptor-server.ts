import { closeSync, openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ControlHandlers } from "#lib/wire/control-messages";
import { registerControlService } from "#lib/wire/control-server";
import { GrpcServer } from "#lib/wire/grpc-server";

/**
 * A process with a control port, which does what it is told:
 *   {exhaust: true}      takes all descriptors that there are
 *   {release: true}      gives them back
 *   {save: DIRECTORY}    writes files into it, all at once
 */
const numFiles = 20;
const handlers = { admit: () => {}, leave: async () => {} } as unknown as ControlHandlers;
const server = new GrpcServer({ security: {}, maxReceiveBytes: 1_000_000 });
registerControlService(server, handlers);
const port = await server.listen("127.0.0.1", 0);
const taken: number[] = [];

function exhaust(): string {
  for (;;) {
    try {
      taken.push(openSync("/dev/null", "r"));
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? "";
    }
  }
}

async function save(directory: string): Promise<string> {
  try {
    const names = Array.from({ length: numFiles }, (_, i) => join(directory, String(i)));
    await Promise.all(names.map((name) => writeFile(name, name)));
    return "saved";
  } catch (error) {
    return String(error);
  }
}

interface Order {
  readonly exhaust?: true;
  readonly save?: string;
}

async function obey(order: Order): Promise<void> {
  let answer = "released";
  if (order.exhaust) answer = exhaust();
  else if (order.save !== undefined) answer = await save(order.save);
  else for (const file of taken.splice(0)) closeSync(file);
  process.send?.({ answer });
}

process.on("message", (order: Order) => {
  void obey(order);
});
process.on("disconnect", () => process.exit());
process.send?.({ answer: String(port) });
