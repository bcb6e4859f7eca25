import type { Fields, Plain } from "./message-fields.js";
import { type ShardStatus, shardStages } from "./reducer-messages.js";

/** Where a shard is, in protobuf. */
export const statusToPlain = ({ version, step, ...status }: ShardStatus): Plain => ({
  ...status,
  version: version ?? 0,
  hasStep: step !== undefined,
  step: step ?? 0,
});

export const parseStatus = (fields: Fields): ShardStatus => ({
  isLoaded: fields.flag("isLoaded"),
  ...(fields.flag("isLoaded") ? { version: fields.count("version") } : {}),
  ...(fields.flag("hasStep") ? { step: fields.count("step") } : {}),
  stage: fields.oneOf("stage", shardStages),
  numSquaresKept: fields.count("numSquaresKept"),
  isFisherFinished: fields.flag("isFisherFinished"),
  numApplied: fields.count("numApplied"),
  numAppliesRepeated: fields.count("numAppliesRepeated"),
});
