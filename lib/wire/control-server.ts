import type grpc from "@grpc/grpc-js";
import { controlMethods } from "./control-codec.js";
import type { ControlHandlers } from "./control-messages.js";
import type { CallContext, GrpcServer } from "./grpc-server.js";
import { readPass } from "./member.js";

/** Offers the control service; errors of the handlers travel with their catalogue code. */
export function registerControlService(server: GrpcServer, handlers: ControlHandlers): void {
  server.addUnary(controlMethods.register, (request, { peer, metadata, certificate }) =>
    handlers.register(request, {
      ...{ peer, certificate },
      formerRunId: readPass({ metadata, certificate }).runId,
    }),
  );
  const addOfMembers = <Request extends { readonly workerId: string }, Reply>(
    method: grpc.MethodDefinition<Request, Reply>,
    handle: (request: Request, context: CallContext) => Promise<Reply>,
  ): void =>
    server.addUnary(method, async (request, context) => {
      handlers.admit(readPass(context), request.workerId);
      return handle(request, context);
    });
  addOfMembers(controlMethods.nextTask, (request, { signal }) =>
    handlers.nextTask(request, signal),
  );
  addOfMembers(controlMethods.completeTask, (request) => handlers.completeTask(request));
  addOfMembers(controlMethods.checkWeights, (request) => handlers.checkWeights(request));
  addOfMembers(controlMethods.heartbeat, (request) => handlers.heartbeat(request));
  addOfMembers(controlMethods.leave, async (request) => {
    await handlers.leave(request);
    return {};
  });
  addOfMembers(controlMethods.reportFailure, async (request) => {
    await handlers.reportFailure(request);
    return {};
  });
}
