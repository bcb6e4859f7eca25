import type { FloatDtype } from "#lib/core/dtype";
import { savedArrays, type WrittenPlace } from "#lib/core/saved-files";
import { codecsOf } from "./codec.js";
import type { Fields, Plain } from "./message-fields.js";
import { numbersOf, toBytes } from "./message-numbers.js";
import { parseStatus, statusToPlain } from "./shard-status-codec.js";
import type {
  FenceChange,
  ShardCommand,
  ShardFiles,
  ShardPeer,
  ShardUpdate,
  StoredTensors,
} from "./reducer-messages.js";

/** Commands to a shard in protobuf, with every field from outside checked. */

/** Tensors of a model. */
const maxTensors = 100_000;
/** A model's path, or a tensor's name. */
const maxNameChars = 4_096;
/** Leases of a step that are taken back at once. */
const maxLeases = 65_536;
/** Shards of a run. */
const maxPeers = 65_536;
const floatDtypes: readonly FloatDtype[] = ["float32", "bfloat16", "float16"];
/** Bytes of a piece of an array that travels in one message. */
export const maxPieceBytes = 4 * 1024 * 1024;

/** A byte of an array. */
function offsetOf(fields: Fields): number {
  const offset = fields.amount("offset");
  if (Number.isSafeInteger(offset)) return offset;
  throw fields.invalid("offset", `is ${offset}, not an integer`);
}

const parseTensors = (fields: Fields): StoredTensors["tensors"] =>
  fields.nestedList("tensors", maxTensors).map((tensor) => ({
    tensor: tensor.count("tensor", maxTensors),
    name: tensor.text("name", maxNameChars),
  }));

const parseStored = (fields: Fields): StoredTensors => ({
  directory: fields.text("directory", maxNameChars),
  tensors: parseTensors(fields),
});

const filesToPlain = ({ masters, frozen, checkpoint }: ShardFiles): Plain => ({
  ...(masters === undefined ? {} : { masters }),
  ...(frozen === undefined ? {} : { frozen }),
  checkpoint: checkpoint?.directory ?? "",
  checkpointSha256: checkpoint?.sha256 ?? "",
});

function parseFiles(fields: Fields): ShardFiles {
  const directory = fields.text("checkpoint", maxNameChars);
  const sha256 = fields.text("checkpointSha256", 64);
  return {
    ...(fields.has("masters") ? { masters: parseStored(fields.nested("masters")) } : {}),
    ...(fields.has("frozen") ? { frozen: parseStored(fields.nested("frozen")) } : {}),
    ...(directory === "" ? {} : { checkpoint: { directory, sha256 } }),
  };
}

function fenceToPlain(change: FenceChange): Plain {
  switch (change.kind) {
    case "admit": {
      const { workerId, secret, certificate } = change;
      const shown = { certificate: certificate ?? "", hasCertificate: certificate !== undefined };
      return { admit: { workerId, secret, ...shown } };
    }
    case "expel":
      return { expel: { workerId: change.workerId } };
    case "grant":
      return { grant: change.lease };
    case "revoke":
      return { revoke: { leases: change.leases } };
  }
}

function parseFence(fields: Fields): FenceChange {
  const kind = fields.oneOf("kind", ["admit", "expel", "grant", "revoke"]);
  const body = fields.nested(kind);
  switch (kind) {
    case "admit":
      return {
        kind,
        workerId: body.text("workerId", 256),
        secret: body.text("secret", 256),
        ...(body.flag("hasCertificate") ? { certificate: body.text("certificate") } : {}),
      };
    case "expel":
      return { kind, workerId: body.text("workerId", 256) };
    case "grant":
      return {
        kind,
        lease: {
          id: body.count("id"),
          workerId: body.text("workerId", 256),
          step: body.count("step"),
          group: body.count("group"),
          isVerified: body.flag("isVerified"),
        },
      };
    case "revoke":
      return { kind, leases: body.list("leases", maxLeases).map(Number) };
  }
}

/** What the statistics of a tensor came to is left out where it is empty. */
const updateToPlain = ({ given, ...update }: ShardUpdate): Plain => ({
  ...update,
  hasGiven: given !== undefined,
  given: (given ?? []).flatMap((values, tensor) =>
    values.length === 0 ? [] : [{ tensor, values: toBytes(values) }],
  ),
});

function parseUpdate(fields: Fields): ShardUpdate {
  const given: Float32Array[] = [];
  const none = new Float32Array();
  for (const each of fields.nestedList("given", maxTensors)) {
    const tensor = each.count("tensor", maxTensors);
    const values = numbersOf(each, "values", Float32Array, 4);
    if (values.length === 0) continue;
    while (given.length <= tensor) given.push(none);
    given[tensor] = values;
  }
  return {
    learningRate: fields.real("learningRate"),
    updateNumber: fields.count("updateNumber"),
    gradientScale: fields.real("gradientScale"),
    ...(fields.flag("hasGiven") ? { given } : {}),
  };
}

const commandKinds = [
  ...["startOver", "status", "loadFiles", "fill", "read", "publishInitial", "fence", "openStep"],
  ...["restartStep", "reduce", "penalise", "keepSquares", "fisherSums", "finishFisher", "measure"],
  ...["apply", "discard", "stats", "finish", "takeSum", "takeState", "digest", "saveState"],
  "saveTensors",
] as readonly ShardCommand["kind"][];

const parsePeer = (fields: Fields): ShardPeer => ({
  address: fields.text("address", 512),
  runId: fields.text("runId", 256),
  epoch: fields.count("epoch"),
  name: fields.text("name", 256),
  secret: fields.text("secret", 256),
});

const placeToPlain = (place: WrittenPlace): Plain => {
  if ("file" in place) return { file: place.file };
  const { bucket, prefix, endpoint = "", region = "" } = place.store;
  return { file: place.key, store: { bucket, prefix, endpoint, region } };
};

function parsePlace(fields: Fields): WrittenPlace {
  const file = fields.text("file", maxNameChars);
  if (!fields.has("store")) return { file };
  const of = fields.nested("store");
  const text = (field: "endpoint" | "region"): string | undefined =>
    of.text(field, maxNameChars) || undefined;
  const [endpoint, region] = [text("endpoint"), text("region")];
  const store = {
    ...{ bucket: of.text("bucket", 256), prefix: of.text("prefix", maxNameChars) },
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
  };
  return { store, key: file };
}

const parseSaveTensors = (fields: Fields): ShardCommand => ({
  kind: "saveTensors",
  place: parsePlace(fields),
  content: {
    array: fields.oneOf("array", savedArrays),
    dtype: fields.oneOf("dtype", floatDtypes),
    finiteAfterStep: fields.count("finiteAfterStep"),
    tensors: parseTensors(fields),
  },
  peers: fields.nestedList("peers", maxPeers).map((each) => ({
    shardIndex: each.count("shardIndex", maxPeers),
    peer: parsePeer(each.nested("peer")),
  })),
});

function commandToPlain(command: ShardCommand): Plain {
  switch (command.kind) {
    case "takeState":
      return { peer: command.peer, status: statusToPlain(command.status) };
    case "loadFiles":
      return filesToPlain(command.files);
    case "fence":
      return fenceToPlain(command.change);
    case "saveState":
      return placeToPlain(command.place);
    case "saveTensors": {
      const { place, content, peers } = command;
      return { ...placeToPlain(place), ...content, peers };
    }
    case "measure": {
      const { step, measurement } = command;
      return { step, pass: measurement.pass, update: updateToPlain(measurement.update) };
    }
    case "apply":
      return { step: command.step, update: updateToPlain(command.update) };
    default:
      return { ...command };
  }
}

function parseCommand(fields: Fields): ShardCommand {
  const kind = fields.oneOf("kind", commandKinds);
  const body = fields.nested(kind);
  switch (kind) {
    case "startOver":
    case "status":
    case "fisherSums":
    case "stats":
    case "finish":
    case "digest":
      return { kind };
    case "takeSum":
      return { kind, step: body.count("step"), peer: parsePeer(body.nested("peer")) };
    case "takeState":
      return {
        kind,
        status: parseStatus(body.nested("status")),
        peer: parsePeer(body.nested("peer")),
      };
    case "loadFiles":
      return { kind, files: parseFiles(body) };
    case "fill": {
      const place = { array: body.text("array", 128), offset: offsetOf(body) };
      return { kind, ...place, values: body.bytes("values", maxPieceBytes) };
    }
    case "read": {
      const place = { array: body.text("array", 128), offset: offsetOf(body) };
      return { kind, ...place, numBytes: body.count("numBytes", maxPieceBytes) };
    }
    case "saveState":
      return { kind, place: parsePlace(body) };
    case "saveTensors":
      return parseSaveTensors(body);
    case "publishInitial":
      return { kind, version: body.count("version") };
    case "fence":
      return { kind, change: parseFence(body) };
    case "openStep":
    case "restartStep":
    case "reduce":
    case "discard":
      return { kind, step: body.count("step") };
    case "penalise":
      return { kind, step: body.count("step"), factor: body.real("factor") };
    case "keepSquares":
      return { kind, step: body.count("step"), first: body.flag("first") };
    case "finishFisher":
      return { kind, scale: body.real("scale") };
    case "measure":
      return {
        kind,
        step: body.count("step"),
        measurement: { pass: body.count("pass", 16), update: parseUpdate(body.nested("update")) },
      };
    case "apply":
      return { kind, step: body.count("step"), update: parseUpdate(body.nested("update")) };
  }
}

export const shardCommand = codecsOf("reducer.proto")<ShardCommand>(
  "ShardCommand",
  (command) => ({ [command.kind]: commandToPlain(command) }),
  parseCommand,
);
