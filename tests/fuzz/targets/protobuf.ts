import protobuf from "protobufjs";
import type { Draw } from "#tests/fuzz/draw";

/** Numbers of a message, whatever its field takes of them. */
const integers = [0, 1, 2, 3, 127, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, -1];
const reals = [0, 1, -1, 0.5, 1e308, -1e308, 5e-324, Number.NaN, Number.POSITIVE_INFINITY];
const strings = [
  "",
  "w",
  "int32",
  "float32",
  "train",
  "losses",
  "cpu",
  "tokens",
  "\0",
  "\ud83d\ude00",
];

/** A message of a type with fields that are each right by themselves, encoded. */
export function drawMessage(type: protobuf.Type, draw: Draw): Uint8Array {
  return type.encode(type.fromObject(drawFields(type, draw))).finish();
}

function drawFields(type: protobuf.Type, draw: Draw): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const field of type.fieldsArray) {
    if (draw.oneIn(8)) continue;
    const length = draw.oneIn(50) ? 70_000 : draw.below(4);
    fields[field.name] = field.repeated
      ? Array.from({ length: field.resolvedType === null ? length : length % 100 }, () =>
          drawValue(field, draw),
        )
      : drawValue(field, draw);
  }
  return fields;
}

function drawValue(field: protobuf.Field, draw: Draw): unknown {
  const { resolvedType } = field.resolve();
  if (resolvedType instanceof protobuf.Type) return drawFields(resolvedType, draw);
  switch (field.type) {
    case "string":
      return draw.oneIn(20) ? "x".repeat(draw.between(1, 20_000)) : draw.pick(strings);
    case "bytes":
      return Buffer.alloc(draw.pick([0, 1, 3, 4, 8, 16, 4_096]), draw.below(256));
    case "bool":
      return draw.oneIn(2);
    case "double":
    case "float":
      return draw.pick(reals);
    default:
      return draw.oneIn(2) ? draw.below(4) : draw.pick(integers);
  }
}
