import { controlMethods } from "./control-codec.js";
import type { ControlHandlers } from "./control-messages.js";
import type { GrpcServer } from "./grpc-server.js";

/** Offers the control service; errors of the handlers travel with their catalogue code. */
export function registerControlService(server: GrpcServer, handlers: ControlHandlers): void {
  server.addUnary(controlMethods.register, (request, { peer }) => handlers.register(request, peer));
  server.addUnary(controlMethods.nextTask, (request, { signal }) =>
    handlers.nextTask(request, signal),
  );
  server.addUnary(controlMethods.completeTask, (request) => handlers.completeTask(request));
  server.addUnary(controlMethods.heartbeat, async (request) => {
    await handlers.heartbeat(request);
    return {};
  });
  server.addUnary(controlMethods.leave, async (request) => {
    await handlers.leave(request);
    return {};
  });
  server.addUnary(controlMethods.reportFailure, async (request) => {
    await handlers.reportFailure(request);
    return {};
  });
}
