import type grpc from "@grpc/grpc-js";
import { LockstepError } from "#lib/core/errors/index";
import {
  decodePushReply,
  encodePullRequest,
  maxBulkMessageBytes,
  type PullRequest,
  type PushReply,
  pullParametersMethod,
  pushGradientsMethod,
} from "./bulk-protocol.js";
import {
  announcedPayloadBytes,
  chunks,
  decodeFrame,
  encodeFrame,
  frameHeaderBytes,
} from "./frame.js";
import { createChannelClient } from "./grpc-client.js";
import { bulkStallTimeoutMs, maxChunksInFlight } from "./limits.js";
import { fromServiceError, remoteErrorCode } from "./rpc-errors.js";
import { type MemberPass, memberTag, passEntries } from "./member.js";
import { callMetadata, isLoopbackAddress, type WireSecurity } from "./security.js";
import { type OfferedRing, SharedRing, sharedRingKey } from "./shared-ring.js";

interface PushRequest {
  readonly step: number;
  readonly group: number;
  readonly lease: number;
  readonly signal?: AbortSignal;
  /** Called after each chunk was taken by the connection. */
  readonly onChunk?: (sentBytes: number) => void | Promise<void>;
}

/** Moves tensors between a worker and one reducer shard, over a connection of its own. */
export class BulkClient {
  readonly address: string;
  readonly #client: grpc.Client;
  readonly #security: WireSecurity;
  readonly #pass: MemberPass;
  /** Of the registration, in each frame. */
  readonly #member: bigint;
  readonly #stallTimeoutMs: number;
  /** Whether the shard may be on this machine. */
  readonly #isNear: boolean;
  /** The shard opened the ring of a call before. */
  #opensRings = false;
  /** Of a call that ended in order: the next one takes it. */
  #spareRing: SharedRing | undefined;
  #isClosed = false;

  constructor(options: {
    readonly address: string;
    readonly security: WireSecurity;
    /** The registration that its calls are of. */
    readonly pass: MemberPass;
    readonly stallTimeoutMs?: number;
    /** Whether payloads may pass through shared memory on one machine. @default true */
    readonly sharedMemory?: boolean;
  }) {
    this.address = options.address;
    this.#security = options.security;
    this.#pass = options.pass;
    this.#member = memberTag(options.pass);
    this.#stallTimeoutMs = options.stallTimeoutMs ?? bulkStallTimeoutMs;
    this.#isNear = options.sharedMemory !== false && isLoopbackAddress(options.address);
    this.#client = createChannelClient({
      address: options.address,
      security: options.security,
      maxReceiveBytes: maxBulkMessageBytes,
    });
  }

  /**
   * Sends a group's gradient of the shard's range.
   * @param wireBytes must not change until the promise settles; may lie on shared memory.
   * @throws E_RPC_UNAVAILABLE, E_RPC_TIMEOUT (nothing moved), E_RPC_FAILED
   */
  async pushGradients(request: PushRequest, wireBytes: Uint8Array): Promise<PushReply> {
    // A push cannot be told whether its ring was opened; the pull before it was.
    const shared = this.#opensRings ? this.#offerRing() : undefined;
    let isComplete = false;
    try {
      const reply = await this.#push(request, wireBytes, shared);
      isComplete = reply.outcome === "complete";
      return reply;
    } catch (error) {
      // Headers without payloads are invalid to a shard that could not open the ring this time.
      if (shared === undefined || remoteErrorCode(error) !== "E_FRAME_INVALID") throw error;
      return await this.#push(request, wireBytes, undefined);
    } finally {
      this.#endRing(shared?.ring, isComplete);
    }
  }

  #offerRing(): OfferedRing | undefined {
    const spare = this.#spareRing;
    this.#spareRing = undefined;
    return spare?.offerAgain() ?? SharedRing.offer();
  }

  /** @param isSpent whether everything that was put into it has been taken out */
  #endRing(ring: SharedRing | undefined, isSpent: boolean): void {
    if (isSpent && this.#spareRing === undefined && !this.#isClosed) this.#spareRing = ring;
    else ring?.close();
  }

  async #push(
    request: PushRequest,
    wireBytes: Uint8Array,
    shared: OfferedRing | undefined,
  ): Promise<PushReply> {
    const failure = {
      method: "PushGradients",
      address: this.address,
      timeoutMs: this.#stallTimeoutMs,
    };
    let settle: (outcome: { reply: Buffer } | { error: unknown }) => void = () => {};
    const settled = new Promise<{ reply: Buffer } | { error: unknown }>((resolve) => {
      settle = resolve;
    });
    const call = this.#client.makeClientStreamRequest(
      pushGradientsMethod.path,
      pushGradientsMethod.requestSerialize,
      pushGradientsMethod.responseDeserialize,
      callMetadata(this.#security, {
        ...passEntries(this.#pass),
        ...(shared === undefined ? {} : { [sharedRingKey]: shared.offer }),
      }),
      (error, reply) => settle(error !== null || reply === undefined ? { error } : { reply }),
    );
    call.on("error", (error: unknown) => settle({ error }));
    const watchdog = new StallWatchdog(this.#stallTimeoutMs, () => {
      settle({ error: new LockstepError("E_RPC_TIMEOUT", failure) });
      call.cancel();
    });
    const cancel = (): void => call.cancel();
    request.signal?.addEventListener("abort", cancel);
    if (request.signal?.aborted === true) cancel();
    let ended = false;
    const outcome = settled.then((result) => {
      ended = true;
      return result;
    });
    try {
      let sentBytes = 0;
      const inFlight: Promise<void>[] = [];
      const { step, group, lease } = request;
      for (const { offset, payload } of chunks(wireBytes)) {
        if (inFlight.length >= maxChunksInFlight) {
          await Promise.race([inFlight.shift(), outcome]);
        }
        // The shard may answer before it has read everything: refused, duplicate, stale.
        if (ended) break;
        const fields = { step, group, lease, offset, member: this.#member };
        const message =
          shared === undefined
            ? encodeFrame(fields, payload)
            : await shared.ring.put(fields, payload, () => ended);
        if (message === undefined) break;
        inFlight.push(
          new Promise((resolve) =>
            call.write(message, () => {
              watchdog.moved();
              resolve();
            }),
          ),
        );
        sentBytes += frameHeaderBytes + payload.length;
        await request.onChunk?.(sentBytes);
      }
      if (!ended) call.end();
      const result = await outcome;
      if ("error" in result) {
        this.#opensRings = false;
        throw fromServiceError(result.error, failure);
      }
      return decodePushReply(result.reply);
    } finally {
      // A call that `onChunk` threw out of would keep its connection open.
      if (!ended) call.cancel();
      watchdog.stop();
      request.signal?.removeEventListener("abort", cancel);
    }
  }

  /**
   * Fetches the shard's range of a version, or a part of it, into `into` of the size in wire form.
   * @throws as pushGradients, and E_TRANSFER_INCOMPLETE, E_FRAME_CORRUPT, E_FRAME_INVALID
   */
  async pullParameters(
    request: PullRequest & { readonly signal?: AbortSignal },
    into: Uint8Array,
  ): Promise<void> {
    const failure = {
      method: "PullParameters",
      address: this.address,
      timeoutMs: this.#stallTimeoutMs,
    };
    const shared = this.#isNear ? this.#offerRing() : undefined;
    const call = this.#client.makeServerStreamRequest(
      pullParametersMethod.path,
      pullParametersMethod.requestSerialize,
      pullParametersMethod.responseDeserialize,
      encodePullRequest(request),
      callMetadata(this.#security, {
        ...passEntries(this.#pass),
        ...(shared === undefined ? {} : { [sharedRingKey]: shared.offer }),
      }),
    );
    let stalled = false;
    const watchdog = new StallWatchdog(this.#stallTimeoutMs, () => {
      stalled = true;
      call.cancel();
    });
    const cancel = (): void => call.cancel();
    request.signal?.addEventListener("abort", cancel);
    if (request.signal?.aborted === true) cancel();
    let receivedBytes = 0;
    try {
      for await (const message of call as AsyncIterable<Buffer>) {
        watchdog.moved();
        const place = into.subarray(receivedBytes, receivedBytes + announcedPayloadBytes(message));
        const frame = shared?.ring.take(message, place) ?? decodeFrame(message);
        if (
          frame.step !== request.version ||
          frame.member !== this.#member ||
          frame.offset !== receivedBytes ||
          frame.offset + frame.payload.length > into.length
        ) {
          throw new LockstepError("E_FRAME_INVALID", {
            reason: `version ${frame.step}, ${frame.payload.length} bytes at ${frame.offset} came where version ${request.version} at ${receivedBytes} of ${into.length} was expected`,
            peer: this.address,
          });
        }
        if (shared?.ring.holds(message) === true) this.#opensRings = true;
        else into.set(frame.payload, frame.offset);
        receivedBytes += frame.payload.length;
      }
    } catch (error) {
      call.cancel();
      throw stalled
        ? new LockstepError("E_RPC_TIMEOUT", failure)
        : fromServiceError(error, failure);
    } finally {
      this.#endRing(shared?.ring, this.#opensRings && receivedBytes === into.length);
      watchdog.stop();
      request.signal?.removeEventListener("abort", cancel);
    }
    if (receivedBytes !== into.length) {
      throw new LockstepError("E_TRANSFER_INCOMPLETE", {
        address: this.address,
        what: `parameter version ${request.version}`,
        receivedBytes,
        expectedBytes: into.length,
      });
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#spareRing?.close();
    this.#client.close();
  }
}

/** A deadline that moves with the data: a slow network is not a dead one. */
class StallWatchdog {
  readonly #timer: NodeJS.Timeout;

  constructor(timeoutMs: number, onStall: () => void) {
    this.#timer = setTimeout(onStall, timeoutMs);
  }

  moved(): void {
    this.#timer.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
