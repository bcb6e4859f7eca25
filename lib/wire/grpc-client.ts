import grpc from "@grpc/grpc-js";
import { silenceGrpcLog } from "./grpc-log.js";
import { channelWindowBytes, keepaliveTimeMs, keepaliveTimeoutMs } from "./limits.js";
import { fromServiceError } from "./rpc-errors.js";
import { callMetadata, clientCredentials, type WireSecurity } from "./security.js";

interface GrpcClientOptions {
  readonly address: string;
  readonly security: WireSecurity;
  readonly maxReceiveBytes: number;
  readonly windowBytes?: number;
}

/** A channel of its own (one TCP connection) with the options that tensors need. */
export function createChannelClient(options: GrpcClientOptions): grpc.Client {
  const { security } = options;
  silenceGrpcLog();
  return new grpc.Client(options.address, clientCredentials(security), {
    "grpc.max_receive_message_length": options.maxReceiveBytes,
    "grpc-node.flow_control_window": options.windowBytes ?? channelWindowBytes,
    "grpc.keepalive_time_ms": keepaliveTimeMs,
    "grpc.keepalive_timeout_ms": keepaliveTimeoutMs,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.use_local_subchannel_pool": 1,
    // A retry would buffer what was sent; the callers repeat whole transfers themselves.
    "grpc.enable_retries": 0,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.enable_channelz": 0,
    "grpc.enable_http_proxy": 0,
    ...(security.tlsServerName === undefined
      ? {}
      : { "grpc.ssl_target_name_override": security.tlsServerName }),
  });
}

/** @throws E_RPC_UNAVAILABLE, E_RPC_TIMEOUT, E_RPC_FAILED */
export async function callUnary<Request, Reply>(
  client: grpc.Client,
  definition: grpc.MethodDefinition<Request, Reply>,
  request: Request,
  call: {
    readonly address: string;
    readonly security: WireSecurity;
    readonly timeoutMs: number;
    readonly signal?: AbortSignal | undefined;
    /** Of its metadata. */
    readonly entries?: Readonly<Record<string, string>>;
  },
): Promise<Reply> {
  const method = definition.path.slice(definition.path.lastIndexOf("/") + 1);
  return new Promise<Reply>((resolve, reject) => {
    const active = client.makeUnaryRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      callMetadata(call.security, call.entries),
      { deadline: Date.now() + call.timeoutMs },
      (error, reply) => {
        call.signal?.removeEventListener("abort", cancel);
        if (error !== null) {
          reject(
            fromServiceError(error, { method, address: call.address, timeoutMs: call.timeoutMs }),
          );
        } else if (reply !== undefined) resolve(reply);
      },
    );
    const cancel = (): void => active.cancel();
    call.signal?.addEventListener("abort", cancel);
    if (call.signal?.aborted === true) cancel();
  });
}
