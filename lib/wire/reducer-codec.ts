import type { ConnectionRefusal } from "#lib/core/events";
import { type Codec, codecsOf, methodsOf } from "./codec.js";
import { maxJobChars } from "./limits.js";
import type { Fields } from "./message-fields.js";
import { numbersOf, toBytes } from "./message-numbers.js";
import { parseStatus, statusToPlain } from "./shard-status-codec.js";
import { maxPieceBytes, shardCommand } from "./reducer-commands.js";
import {
  type OpenShard,
  type ShardAnswer,
  type ShardNotice,
  type ShardStatus,
} from "./reducer-messages.js";

/** The reducer service's messages in protobuf, with every field from outside checked. */
const codec = codecsOf("reducer.proto");

/** Tensors of a model. */
const maxTensors = 100_000;
/** Checksums of a file of 512 GB. */
const maxPiecesChars = 4 * 1024 * 1024;
/** Sums of parts of tensors: a tensor may go on through many blocks of a shard. */
const maxWindows = 1_000_000;

const nothing: Codec<Record<never, never>> = codec(
  "Nothing",
  () => ({}),
  () => ({}),
);

const float64Of = (fields: Fields, field: string): Float64Array =>
  numbersOf(fields, field, Float64Array, 8);

const openShard = codec<OpenShard>(
  "OpenShard",
  (value) => ({ ...value }),
  (fields) => ({
    shardIndex: fields.count("shardIndex"),
    numShards: fields.count("numShards", 4_096),
    layoutJson: fields.text("layoutJson", maxJobChars),
    frozenJson: fields.text("frozenJson", maxJobChars),
    optimizerJson: fields.text("optimizerJson"),
    gradientGroups: fields.count("gradientGroups", 65_536),
  }),
);

const shardStatus = codec<ShardStatus>("ShardStatus", statusToPlain, parseStatus);

const answerKinds = [
  ...[
    "done",
    "sums",
    "penalised",
    "windows",
    "status",
    "values",
    "stats",
    "loaded",
    "digest",
    "saved",
  ],
] as readonly ShardAnswer["kind"][];

function answerToPlain(answer: ShardAnswer): unknown {
  switch (answer.kind) {
    case "done":
      return {};
    case "sums":
      return toBytes(answer.sums);
    case "penalised": {
      const { squares, distances } = answer.sums;
      return { squares: toBytes(squares), distances: toBytes(distances) };
    }
    case "windows":
      return {
        windows: answer.windows.map((window) => ({ ...window, sums: toBytes(window.sums) })),
      };
    case "status":
      return statusToPlain(answer.status);
    case "values":
      return toBytes(answer.values);
    case "stats":
      return answer.stats;
    case "loaded":
      return answer.files;
    case "digest":
      return answer.sha256;
    case "saved":
      return { sizeBytes: answer.sizeBytes, sha256: answer.sha256, pieces: answer.pieces };
  }
}

const shardAnswer = codec<ShardAnswer>(
  "ShardAnswer",
  (answer) => ({ [answer.kind]: answerToPlain(answer) }),
  (fields) => {
    const kind = fields.oneOf("kind", answerKinds);
    switch (kind) {
      case "done":
        return { kind };
      case "sums":
        return { kind, sums: float64Of(fields, "sums") };
      case "values":
        return { kind, values: fields.bytes("values", maxPieceBytes) };
      case "digest":
        return { kind, sha256: fields.text("digest", 64) };
      default:
        break;
    }
    const body = fields.nested(kind);
    switch (kind) {
      case "penalised": {
        const [squares, distances] = ["squares", "distances"].map((of) => float64Of(body, of));
        return {
          kind,
          sums: { squares: squares as Float64Array, distances: distances as Float64Array },
        };
      }
      case "windows":
        return {
          kind,
          windows: body.nestedList("windows", maxWindows).map((window) => ({
            tensor: window.count("tensor", maxTensors),
            at: window.count("at"),
            sums: float64Of(window, "sums"),
          })),
        };
      case "status":
        return { kind, status: parseStatus(body) };
      case "stats":
        return {
          kind,
          stats: {
            receivedBytes: body.amount("receivedBytes"),
            sentBytes: body.amount("sentBytes"),
          },
        };
      case "saved":
        return {
          ...{ kind, sizeBytes: body.amount("sizeBytes"), sha256: body.text("sha256", 64) },
          pieces: body.text("pieces", maxPiecesChars),
        };
      case "loaded":
        return {
          kind,
          files: {
            mastersSha256: body.text("mastersSha256", 64),
            frozenSha256: body.text("frozenSha256", 64),
          },
        };
    }
  },
);

const connectionRefusals: readonly ConnectionRefusal[] = [
  ...(["crowd", "silence", "full", "descriptors"] as const),
];

const noticeKinds = ["arrived", "refused", "rpc", "connectionsRefused", "pushesWaiting"] as const;

const shardNotice = codec<ShardNotice>(
  "ShardNotice",
  (notice) => ({
    [notice.type]: notice.type === "arrived" ? notice.arrived : { ...notice },
  }),
  (fields) => {
    const type = fields.oneOf("kind", noticeKinds);
    const body = fields.nested(type);
    switch (type) {
      case "arrived":
        return {
          type,
          arrived: {
            step: body.count("step"),
            group: body.count("group"),
            lease: body.count("lease"),
            digest: body.text("digest", 64),
          },
        };
      case "refused":
        return {
          type,
          workerId: body.text("workerId", 256),
          peer: body.text("peer", 256),
          code: body.text("code", 128),
          reason: body.text("reason"),
        };
      case "rpc":
        return {
          type,
          method: body.text("method", 128),
          code: body.text("code", 128),
          seconds: body.amount("seconds"),
        };
      case "connectionsRefused":
        return {
          type,
          reason: body.oneOf("reason", connectionRefusals),
          numConnections: body.count("numConnections"),
        };
      case "pushesWaiting":
        return { type, numPushes: body.count("numPushes") };
    }
  },
);

export const reducerMethods = {
  open: methodsOf("Reducer")("Open", openShard, shardStatus),
  call: methodsOf("Reducer")("Call", shardCommand, shardAnswer),
  watch: methodsOf("Reducer", true)("Watch", nothing, shardNotice),
} as const;
