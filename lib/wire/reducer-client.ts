import type grpc from "@grpc/grpc-js";
import { callUnary, createChannelClient } from "./grpc-client.js";
import { maxControlMessageBytes } from "./limits.js";
import { type MemberPass, passEntries } from "./member.js";
import { reducerMethods } from "./reducer-codec.js";
import type {
  OpenShard,
  ShardAnswer,
  ShardCommand,
  ShardNotice,
  ShardStatus,
} from "./reducer-messages.js";
import { fromServiceError, remoteError } from "./rpc-errors.js";
import { callMetadata, type WireSecurity } from "./security.js";

/** A coordinator's side of the reducer service: one shard in another process. */
export class ReducerClient {
  readonly address: string;
  readonly #client: grpc.Client;
  readonly #security: WireSecurity;
  readonly #pass: MemberPass;

  /** @param options.pass run, epoch and secret of the run's coordinators; `workerId` is of no worker */
  constructor(options: {
    readonly address: string;
    readonly security: WireSecurity;
    readonly pass: MemberPass;
  }) {
    this.address = options.address;
    this.#security = options.security;
    this.#pass = options.pass;
    this.#client = createChannelClient({
      address: options.address,
      security: options.security,
      maxReceiveBytes: maxControlMessageBytes,
    });
  }

  /** @throws E_RPC_UNAVAILABLE, E_RPC_TIMEOUT, and what the process refuses it with */
  async open(request: OpenShard, timeoutMs: number, signal: AbortSignal): Promise<ShardStatus> {
    return this.#call(reducerMethods.open, request, timeoutMs, signal);
  }

  /** @throws E_RPC_UNAVAILABLE, E_RPC_TIMEOUT, and what the process refuses it with */
  async call(command: ShardCommand, timeoutMs: number, signal: AbortSignal): Promise<ShardAnswer> {
    return this.#call(reducerMethods.call, command, timeoutMs, signal);
  }

  /** Hears of what happens there until the stream ends. @throws as `call`, where it ends by an error */
  async watch(onNotice: (notice: ShardNotice) => void, signal: AbortSignal): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = reducerMethods.watch;
    const metadata = callMetadata(this.#security, passEntries(this.#pass));
    const stream = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      {},
      metadata,
    );
    const cancel = (): void => stream.cancel();
    signal.addEventListener("abort", cancel);
    if (signal.aborted) cancel();
    try {
      for await (const notice of stream as AsyncIterable<ShardNotice>) onNotice(notice);
    } catch (error) {
      throw (
        remoteError(error) ?? fromServiceError(error, { ...this.#context("Watch"), timeoutMs: 0 })
      );
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  close(): void {
    this.#client.close();
  }

  async #call<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    request: Request,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Reply> {
    try {
      return await callUnary(this.#client, definition, request, {
        address: this.address,
        security: this.#security,
        ...{ timeoutMs, signal },
        entries: passEntries(this.#pass),
      });
    } catch (error) {
      throw remoteError(error) ?? error;
    }
  }

  #context(method: string): { readonly method: string; readonly address: string } {
    return { method, address: this.address };
  }
}
