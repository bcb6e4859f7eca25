import { LockstepError } from "#lib/core/errors/index";
import {
  decodePullRequest,
  encodePushReply,
  partOf,
  type PullRequest,
  type PushReply,
  pullParametersMethod,
  pushGradientsMethod,
} from "./bulk-protocol.js";
import { chunks, decodeFrame, encodeFrame, type Frame, type FrameFields } from "./frame.js";
import type { CallContext, GrpcServer } from "./grpc-server.js";
import { type MemberPass, memberTag, readPass } from "./member.js";
import { SharedRing, sharedRingKey } from "./shared-ring.js";

export interface PushMeta {
  /** What the call shows. */
  readonly pass: MemberPass;
  readonly peer: string;
  /** Aborted when the worker went away. */
  readonly signal: AbortSignal;
}

export interface BulkHandlers {
  /**
   * Consumes the frames of one push: all of one (step, group, lease). Iteration throws
   * E_FRAME_CORRUPT / E_FRAME_INVALID on a bad frame and E_RPC_UNAVAILABLE when the worker went away;
   * the payload of a frame may be read until the next one is asked for. Frames wait where they are
   * while the consumer does not ask.
   */
  pushGradients(meta: PushMeta, frames: AsyncIterable<Frame>): Promise<PushReply>;
  /** @throws E_VERSION_NOT_PUBLISHED, and where the call is none of a member E_STALE_RUN, E_UNKNOWN_WORKER */
  pullParameters(request: PullRequest, pass: MemberPass): Uint8Array | PullSource;
}

export interface PullSource {
  /** The published bytes of the version of the shard's range; copied chunk by chunk as they are sent. */
  readonly bytes: Uint8Array;
  /**
   * Called right before each copy; throws E_VERSION_NOT_PUBLISHED when a later version has taken the
   * memory, which ends the stream with that error instead of mixing two versions.
   */
  readonly beforeChunk?: (payloadBytes: number) => void;
}

export function registerBulkService(server: GrpcServer, handlers: BulkHandlers): void {
  server.addClientStream(pushGradientsMethod, async (messages, context) => {
    const pass = readPass(context.metadata);
    const meta: PushMeta = { pass, peer: context.peer, signal: context.signal };
    const ring = ringOf(context);
    try {
      return encodePushReply(
        await handlers.pushGradients(meta, frames(messages, ring, memberTag(pass))),
      );
    } finally {
      ring?.close();
    }
  });
  server.addServerStream(pullParametersMethod, (message, context) => {
    const request = decodePullRequest(message);
    const pass = readPass(context.metadata);
    const published = handlers.pullParameters(request, pass);
    const source: PullSource = published instanceof Uint8Array ? { bytes: published } : published;
    const asked = { ...source, bytes: partOf(source.bytes, request) };
    const fields = { step: request.version, group: 0, lease: 0, member: memberTag(pass) };
    return outgoing(asked, fields, ringOf(context), context.signal);
  });
}

/** The ring that a caller on this machine offered. */
function ringOf({ metadata }: CallContext): SharedRing | undefined {
  const offer = metadata.get(sharedRingKey)[0];
  return offer === undefined ? undefined : SharedRing.accept(String(offer));
}

async function* outgoing(
  { bytes, beforeChunk }: PullSource,
  shared: Omit<FrameFields, "offset">,
  ring: SharedRing | undefined,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  try {
    for (const { offset, payload } of chunks(bytes)) {
      const fields = { ...shared, offset };
      // Not before the wait for a slot, during which a later version may take the memory.
      const beforeCopy = (): void => beforeChunk?.(payload.length);
      if (ring === undefined) beforeCopy();
      const message =
        ring === undefined
          ? encodeFrame(fields, payload)
          : await ring.put(fields, payload, () => signal.aborted, beforeCopy);
      if (message === undefined) return;
      yield message;
    }
  } finally {
    ring?.close();
  }
}

async function* frames(
  messages: AsyncIterable<Buffer>,
  ring: SharedRing | undefined,
  member: bigint,
): AsyncGenerator<Frame> {
  let first: Frame | undefined;
  for await (const message of messages) {
    const frame = ring?.take(message) ?? decodeFrame(message);
    first ??= frame;
    if (frame.member !== member) {
      throw new LockstepError("E_FRAME_INVALID", {
        reason: "it is of another registration, run or epoch than its call",
      });
    }
    if (frame.step !== first.step || frame.group !== first.group || frame.lease !== first.lease) {
      throw new LockstepError("E_FRAME_INVALID", {
        reason: "it belongs to another lease than the first frame of its stream",
      });
    }
    yield frame;
  }
}
