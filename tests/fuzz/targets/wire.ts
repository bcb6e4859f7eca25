import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import type grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import {
  decodePullRequest,
  decodePushReply,
  encodePullRequest,
  encodePushReply,
  partOf,
} from "#lib/wire/bulk-protocol";
import { controlMethods } from "#lib/wire/control-codec";
import { reducerMethods } from "#lib/wire/reducer-codec";
import { decodeFrame, encodeFrame, frameHeaderBytes } from "#lib/wire/frame";
import { SharedRing } from "#lib/wire/shared-ring";
import type { Draw } from "#tests/fuzz/draw";
import { property, type Target } from "#tests/fuzz/target";
import { texts } from "./files.js";
import { drawMessage } from "./protobuf.js";

interface Side {
  readonly type: protobuf.Type;
  readonly serialize: (value: unknown) => Buffer;
  readonly deserialize: (bytes: Buffer) => unknown;
}

/** Requests and replies of all methods of a service; the first byte says of which message the others are. */
function messages(
  name: string,
  [protoFile, serviceName]: readonly [protoFile: string, service: string],
  methods: Methods,
): Target {
  const file = join(packageRoot, "proto/lockstep/v1", protoFile);
  const schema = protobuf.loadSync(file).resolveAll();
  const service = schema.lookupService(`lockstep.v1.${serviceName}`);
  const sides: readonly Side[] = Object.values(methods).flatMap((definition) => {
    const method = service.methods[definition.path.split("/").at(-1) ?? ""] as protobuf.Method;
    const of = (type: string, serialize: unknown, deserialize: unknown): Side => ({
      type: schema.lookupType(`lockstep.v1.${type}`),
      serialize: serialize as Side["serialize"],
      deserialize: deserialize as Side["deserialize"],
    });
    return [
      of(method.requestType, definition.requestSerialize, definition.requestDeserialize),
      of(method.responseType, definition.responseSerialize, definition.responseDeserialize),
    ];
  });
  return {
    name,
    share: 20,
    open: async () => ({
      kind: "bytes",
      form: "bytes",
      corpus: sides.map((_, side) => Buffer.from([side, 8, 5, 18, 1, 119, 26, 1, 104])),
      generate: (draw: Draw) => {
        const side = draw.below(sides.length);
        const { type } = sides[side] as Side;
        return Buffer.concat([Buffer.from([side]), drawMessage(type, draw)]);
      },
      read(input) {
        const side = sides[(input[0] ?? 0) % sides.length] as Side;
        const value = side.deserialize(input.subarray(1));
        // What was let in can be said again, and means the same.
        assert.deepEqual(side.deserialize(side.serialize(value)), value);
      },
    }),
  };
}

type Methods = Readonly<Record<string, grpc.MethodDefinition<never, never>>>;

const control = messages(
  "wire/control",
  ["control.proto", "Control"],
  controlMethods as unknown as Methods,
);
const reducer = messages(
  "wire/reducer",
  ["reducer.proto", "Reducer"],
  reducerMethods as unknown as Methods,
);

const limit = 2 ** 53 - 1;
const frameFields = fc.record({
  step: fc.nat(2 ** 32 - 1),
  group: fc.nat(2 ** 32 - 1),
  lease: fc.nat(limit),
  offset: fc.nat(limit),
  member: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
});
const sample = encodeFrame(
  { step: 1, group: 2, lease: 3, offset: 4, member: 5n },
  Buffer.from("payload"),
);

const frames: Target = {
  name: "wire/frame",
  share: 20,
  open: async () => ({
    kind: "bytes",
    form: "bytes",
    corpus: [
      sample,
      encodeFrame({ step: 0, group: 0, lease: 0, offset: 0, member: 0n }, Buffer.alloc(0)),
    ],
    // The checksum is right, so that the other fields are looked at.
    generate(draw) {
      const fields = {
        step: draw.uint32(),
        group: draw.uint32(),
        lease: draw.pick([0, 1, limit]),
        offset: draw.pick([0, 1, 2 ** 32, limit]),
        member: BigInt(draw.uint32()),
      };
      return encodeFrame(fields, Buffer.alloc(draw.below(64), draw.below(256)));
    },
    read(input) {
      const frame = decodeFrame(input);
      assert.deepEqual(encodeFrame(frame, frame.payload), input);
    },
  }),
};

const writtenFrames = property(
  "wire/frame-written",
  5,
  fc.tuple(frameFields, fc.uint8Array({ maxLength: 100 }), fc.nat(), fc.nat(7)),
  ([fields, payload, position, bit]) => {
    const message = encodeFrame(fields, payload);
    const { checksum, ...frame } = decodeFrame(message);
    assert.ok(Number.isInteger(checksum));
    assert.deepEqual(
      { ...frame, payload: [...frame.payload] },
      { ...fields, payload: [...payload] },
    );
    const at = position % message.length;
    message[at] = (message[at] ?? 0) ^ (1 << bit);
    assert.throws(() => decodeFrame(message), isLockstepError);
  },
);

const range = Buffer.alloc(1_000);
const bulk: Target = {
  name: "wire/bulk-request",
  share: 10,
  open: async () => ({
    kind: "bytes",
    form: "bytes",
    corpus: [
      encodePullRequest({ version: 1 }),
      encodePullRequest({ space: "frozen", version: 0, part: { offset: 8, numBytes: 16 } }),
      encodePushReply({ outcome: "complete", receivedBytes: 1_000 }),
    ],
    read(input) {
      const request = ((): ReturnType<typeof decodePullRequest> | undefined => {
        try {
          return decodePullRequest(input);
        } catch (error) {
          // A reply, then, or neither.
          if (!isLockstepError(error)) throw error;
          return undefined;
        }
      })();
      if (request === undefined) return decodePushReply(input);
      assert.ok(partOf(range, request).length <= range.length);
      return assert.deepEqual(encodePullRequest(request), input);
    },
  }),
};

/** What a worker offers as the place of its payloads, and the messages whose payloads would lie there. */
const offers: Target = {
  name: "wire/shared-ring",
  share: 3,
  writes: ["/dev/shm/*", "/proc/*"],
  maxBufferBytes: 64 * 2 ** 20,
  async open() {
    const made = SharedRing.offer();
    const offer = made?.offer ?? `${process.pid}:3:${"0".repeat(32)}`;
    return {
      kind: "bytes",
      form: "text",
      corpus: texts(
        offer,
        "1:0:00000000000000000000000000000000",
        `${process.pid}:0:${"f".repeat(32)}`,
      ),
      words: ["../", "self", "/dev/zero", "-1", "4294967296", ":", "0x", "1e3", "fd"],
      read(input) {
        const text = input.toString("latin1");
        const ring = SharedRing.accept(text);
        assert.ok(ring === undefined || text === offer, "a ring that nobody offered");
        if (ring === undefined) return;
        try {
          const message = Buffer.from(sample.subarray(0, frameHeaderBytes));
          ring.take(message);
        } finally {
          ring.close();
        }
      },
      close: async () => made?.ring.close(),
    };
  },
};

export const targets: readonly Target[] = [control, reducer, frames, writtenFrames, bulk, offers];
