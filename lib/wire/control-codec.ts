import { type Batch, dtypeOf, type FieldArray } from "#lib/core/batch";
import type { WorkerState } from "#lib/core/events";
import type { EvaluatedBatch } from "#lib/core/job";
import { type Codec, codecsOf, methodsOf } from "./codec.js";
import type {
  CheckWeightsReply,
  CheckWeightsRequest,
  CompleteTaskReply,
  CompleteTaskRequest,
  HeartbeatReply,
  HeartbeatRequest,
  LeaveRequest,
  NextTaskRequest,
  RegisterReply,
  RegisterRequest,
  ReportFailureRequest,
  Task,
  TaskResult,
} from "./control-messages.js";
import type { Fields, Plain } from "./message-fields.js";
import { maxJobChars, maxTaskBatches, maxTokenIds } from "./limits.js";

const codec = codecsOf("control.proto");

/** Limits of what a peer may say, with room over what a real one says. */
const maxWaitMs = 600_000;
const maxHeldLeases = 64;
/** A model reads four fields at most, and an objective compares it with a few. */
const maxFields = 64;

const fieldToPlain = (name: string, values: FieldArray): Plain => {
  const bytes = Buffer.allocUnsafe(values.length * 4);
  const isInt32 = values instanceof Int32Array;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (isInt32) bytes.writeInt32LE(value, i * 4);
    else bytes.writeFloatLE(value, i * 4);
  }
  return { name, dtype: dtypeOf(values), values: bytes };
};

const parseField = (fields: Fields): [string, FieldArray] => [
  fields.text("name", 128),
  fields.values("values", fields.oneOf("dtype", ["int32", "float32"])),
];

const batchToPlain = ({ numRows, task = 0, fields }: Batch): Plain => ({
  ...{ numRows, task },
  fields: Object.entries(fields).map(([name, values]) => fieldToPlain(name, values)),
});

const parseBatch = (message: Fields): Batch => {
  const numRows = message.count("numRows");
  const fields = new Map<string, FieldArray>();
  for (const field of message.nestedList("fields", maxFields)) {
    const [name, values] = parseField(field);
    if (fields.has(name)) throw message.invalid("fields", `has ${name} twice`);
    if (numRows === 0 || values.length % numRows !== 0) {
      throw message.invalid("fields", `has ${name}, which is not ${numRows} equal rows`);
    }
    fields.set(name, values);
  }
  const task = message.count("task");
  return { numRows, ...(task === 0 ? {} : { task }), fields: Object.fromEntries(fields) };
};

const lossSumToPlain = ({ outputs, ...sums }: EvaluatedBatch): Plain => ({
  ...sums,
  ...(outputs === undefined ? {} : { outputs: fieldToPlain("outputs", outputs) }),
});

const parseLossSum = (fields: Fields): EvaluatedBatch => ({
  lossSum: fields.real("lossSum"),
  weight: fields.amount("weight"),
  ...(fields.has("outputs") ? { outputs: parseField(fields.nested("outputs"))[1] } : {}),
});

const registerRequest = codec<RegisterRequest>(
  "RegisterRequest",
  (value) => ({ ...value }),
  (fields) => ({
    protocolVersion: fields.count("protocolVersion"),
    name: fields.text("name", 128),
    host: fields.text("host", 256),
    pid: fields.count("pid"),
    deviceKind: fields.text("deviceKind"),
    deviceType: fields.oneOf("deviceType", ["cpu", "gpu"]),
    advisesBf16: fields.flag("advisesBf16"),
    bf16Slowdown: fields.real("bf16Slowdown"),
    advisesFp16: fields.flag("advisesFp16"),
    fp16Slowdown: fields.real("fp16Slowdown"),
    incarnation: fields.text("incarnation", 64),
  }),
);

/** A job's layout is a few hundred bytes a tensor. */

const registerReply = codec<RegisterReply>(
  "RegisterReply",
  (value) => ({ ...value }),
  (fields) => ({
    workerId: fields.text("workerId", 256),
    jobJson: fields.text("jobJson", maxJobChars),
    shardAddresses: fields.list("shardAddresses", 4_096).map(String),
    heartbeatIntervalMs: fields.count("heartbeatIntervalMs", maxWaitMs),
    retryAfterMs: fields.count("retryAfterMs", maxWaitMs),
    runId: fields.text("runId", 64),
    epoch: fields.count("epoch"),
    memberSecret: fields.text("memberSecret", 64),
    waitReason: fields.text("waitReason"),
  }),
);

const nextTaskRequest = codec<NextTaskRequest>(
  "NextTaskRequest",
  (value) => ({ ...value }),
  (fields) => ({
    workerId: fields.text("workerId", 256),
    maxWaitMs: fields.count("maxWaitMs", maxWaitMs),
    heldLeases: fields.list("heldLeases", maxHeldLeases).map(Number),
  }),
);

const task = codec<Task>(
  "Task",
  (value) => {
    if (value.kind === "train" || value.kind === "evaluate") {
      return { [value.kind]: { ...value, batches: value.batches.map(batchToPlain) } };
    }
    return { [value.kind]: { ...value } };
  },
  (fields) => {
    const kind = fields.oneOf("kind", ["train", "evaluate", "generate", "wait", "finished"]);
    const body = fields.nested(kind);
    switch (kind) {
      case "train": {
        const batches = body.nestedList("batches", maxTaskBatches).map(parseBatch);
        const gradScales = body.list("gradScales", maxTaskBatches).map(Number);
        if (gradScales.length !== batches.length) {
          const reason = `has ${gradScales.length} entries for ${batches.length} batches`;
          throw body.invalid("gradScales", reason);
        }
        return {
          kind,
          lease: body.count("lease"),
          step: body.count("step"),
          group: body.count("group"),
          version: body.count("version"),
          gradScales,
          ...(body.flag("squares") ? { squares: true } : {}),
          ...(body.flag("isFingerprinted") ? { isFingerprinted: true as const } : {}),
          batches,
        };
      }
      case "evaluate":
        return {
          kind,
          lease: body.count("lease"),
          version: body.count("version"),
          batches: body.nestedList("batches", maxTaskBatches).map(parseBatch),
        };
      case "generate":
        return {
          kind,
          lease: body.count("lease"),
          version: body.count("version"),
          prompt: body.list("prompt", maxTokenIds).map(Number),
          maxNewTokens: body.count("maxNewTokens", maxTokenIds),
          endTokenIds: body.list("endTokenIds", 4_096).map(Number),
        };
      case "wait":
        return { kind };
      case "finished":
        return { kind, reason: body.text("reason"), interrupted: body.flag("interrupted") };
    }
  },
);

const completeTaskRequest = codec<CompleteTaskRequest>(
  "CompleteTaskRequest",
  ({ workerId, lease, result }) => ({
    workerId,
    lease,
    [result.kind]:
      result.kind === "losses" ? { sums: result.sums.map(lossSumToPlain) } : { ids: result.ids },
  }),
  (fields) => {
    const kind = fields.oneOf("result", ["losses", "tokens"]);
    const body = fields.nested(kind);
    const result: TaskResult =
      kind === "losses"
        ? { kind, sums: body.nestedList("sums", maxTaskBatches).map(parseLossSum) }
        : { kind, ids: body.list("ids", maxTokenIds).map(Number) };
    return { workerId: fields.text("workerId", 256), lease: fields.count("lease"), result };
  },
);

const completeTaskReply = codec<CompleteTaskReply>(
  "CompleteTaskReply",
  (value) => ({ ...value }),
  (fields) => ({ stale: fields.flag("stale") }),
);

/** Of the two spaces. */
const maxFingerprints = 2;

const checkWeightsRequest = codec<CheckWeightsRequest>(
  "CheckWeightsRequest",
  (value) => ({ ...value }),
  (fields) => ({
    workerId: fields.text("workerId", 256),
    lease: fields.count("lease"),
    version: fields.count("version"),
    fingerprints: fields.nestedList("fingerprints", maxFingerprints).map((print) => ({
      space: print.oneOf("space", ["trained", "frozen"]),
      sent: print.text("sent", 64),
      held: print.text("held", 64),
    })),
  }),
);

const checkWeightsReply = codec<CheckWeightsReply>(
  "CheckWeightsReply",
  (value) => ({ ...value }),
  (fields) => ({ isIntact: fields.flag("isIntact") }),
);

const reportedStates: readonly WorkerState[] = [
  "compiling",
  "idle",
  "loading",
  "computing",
  "sending",
];

const heartbeatRequest = codec<HeartbeatRequest>(
  "HeartbeatRequest",
  (value) => ({ ...value }),
  (fields) => ({
    workerId: fields.text("workerId", 256),
    state: fields.oneOf("state", reportedStates),
    utilization: fields.real("utilization"),
    memoryUsedBytes: fields.real("memoryUsedBytes"),
    memoryTotalBytes: fields.real("memoryTotalBytes"),
    deviceSeconds: fields.real("deviceSeconds"),
  }),
);

const heartbeatReply = codec<HeartbeatReply>(
  "HeartbeatReply",
  (value) => ({ ...value }),
  (fields) => ({ version: fields.count("version") }),
);

const leaveRequest = codec<LeaveRequest>(
  "LeaveRequest",
  (value) => ({ ...value }),
  (fields) => ({ workerId: fields.text("workerId", 256), reason: fields.text("reason") }),
);

const reportFailureRequest = codec<ReportFailureRequest>(
  "ReportFailureRequest",
  (value) => ({ ...value }),
  (fields) => ({
    workerId: fields.text("workerId", 256),
    lease: fields.count("lease"),
    code: fields.text("code", 128),
    message: fields.text("message"),
    fatal: fields.flag("fatal"),
  }),
);

type Empty = Record<never, never>;
const empty = (name: string): Codec<Empty> =>
  codec<Empty>(
    name,
    () => ({}),
    () => ({}),
  );

const method = methodsOf("Control");

export const controlMethods = {
  register: method("Register", registerRequest, registerReply),
  nextTask: method("NextTask", nextTaskRequest, task),
  completeTask: method("CompleteTask", completeTaskRequest, completeTaskReply),
  checkWeights: method("CheckWeights", checkWeightsRequest, checkWeightsReply),
  heartbeat: method("Heartbeat", heartbeatRequest, heartbeatReply),
  leave: method("Leave", leaveRequest, empty("LeaveReply")),
  reportFailure: method("ReportFailure", reportFailureRequest, empty("ReportFailureReply")),
} as const;
