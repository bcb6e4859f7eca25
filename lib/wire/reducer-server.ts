import type { GrpcServer } from "./grpc-server.js";
import { type MemberPass, readPass } from "./member.js";
import { reducerMethods } from "./reducer-codec.js";
import type {
  OpenShard,
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStatus,
} from "./reducer-messages.js";

export interface ReducerHandlers {
  open(request: OpenShard, pass: MemberPass): Promise<ShardStatus>;
  call(command: ShardCommand, pass: MemberPass): Promise<ShardAnswer>;
  /** What happens from now on, until `signal` is aborted. */
  watch(pass: MemberPass, signal: AbortSignal): AsyncIterable<ShardNotice>;
}

/** Offers the reducer service; errors of the handlers travel with their catalogue code. */
export function registerReducerService(server: GrpcServer, handlers: ReducerHandlers): void {
  server.addUnary(reducerMethods.open, async (request, context) =>
    handlers.open(request, readPass(context)),
  );
  server.addUnary(reducerMethods.call, async (command, context) =>
    handlers.call(command, readPass(context)),
  );
  server.addServerStream(reducerMethods.watch, (_request, context) =>
    handlers.watch(readPass(context), context.signal),
  );
}
