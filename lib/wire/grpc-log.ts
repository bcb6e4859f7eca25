import grpc from "@grpc/grpc-js";

/** gRPC's own log on standard error repeats what our errors say; who asks for it by its variables gets it. */
export function silenceGrpcLog(): void {
  const { GRPC_VERBOSITY: asked, GRPC_NODE_VERBOSITY: askedOfNode } = process.env;
  if (asked === undefined && askedOfNode === undefined) {
    grpc.setLogVerbosity(grpc.logVerbosity.NONE);
  }
}
