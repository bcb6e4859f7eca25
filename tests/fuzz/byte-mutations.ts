import type { Draw } from "./draw.js";

/** Longest input, bytes: what a reader does is to be in proportion to it. */
export const maxInputBytes = 256 * 1024;

/** Lengths, counts and offsets that a format would not have. */
const hostileIntegers: readonly bigint[] = [
  0n,
  1n,
  2n ** 7n,
  2n ** 15n - 1n,
  2n ** 16n,
  2n ** 24n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 33n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** What text files are hurt with: nesting, numbers, marks, line ends, bytes that are not UTF-8. */
const hostileTexts: readonly Buffer[] = [
  Buffer.from("\ufeff"),
  Buffer.from("\0"),
  Buffer.from([0xff]),
  Buffer.from([0xc3]),
  Buffer.from([0xed, 0xa0, 0x80]),
  Buffer.from("\u2028"),
  Buffer.from("\r\n"),
  Buffer.from("\r"),
  Buffer.from("\ud83d\ude00"),
  Buffer.from("\\ud800"),
  Buffer.from("\\u0000"),
  Buffer.from("1e999"),
  Buffer.from("-1e999"),
  Buffer.from("NaN"),
  Buffer.from("-Infinity"),
  Buffer.from("9007199254740993"),
  Buffer.from("-0"),
  Buffer.from("null"),
  Buffer.from("true"),
  Buffer.from('"'),
  Buffer.from("{"),
  Buffer.from("]"),
  Buffer.from(","),
  Buffer.from("__proto__"),
  Buffer.from("constructor"),
  Buffer.from("../../etc/passwd"),
  Buffer.from("/dev/zero"),
];

type Mutation = (bytes: Buffer, draw: Draw, corpus: readonly Uint8Array[]) => Buffer;

const mutations: readonly Mutation[] = [
  flipBit,
  setByte,
  writeInteger,
  writeInteger,
  truncate,
  remove,
  repeat,
  insertBytes,
  insertText,
  nest,
  splice,
  swap,
];

/** One to eight changes of a valid input. @param words of the format's language */
export function mutateBytes(
  valid: Uint8Array,
  draw: Draw,
  corpus: readonly Uint8Array[],
  words: readonly string[] = [],
): Buffer {
  let bytes: Buffer = Buffer.from(valid);
  const numChanges = draw.oneIn(2) ? 1 : draw.between(1, 8);
  for (let i = 0; i < numChanges; i++) {
    bytes =
      words.length > 0 && draw.oneIn(3)
        ? insert(bytes, draw, Buffer.from(draw.pick(words)))
        : draw.pick(mutations)(bytes, draw, corpus);
  }
  return bytes.subarray(0, maxInputBytes);
}

/** A place in the input: headers are at its start, footers at its end. */
function placeIn({ length }: Buffer, draw: Draw): number {
  const edge = Math.min(length, 512);
  const from = draw.pick([0, 0, length - edge, -1]);
  return from < 0 ? draw.below(length) : from + draw.below(from === 0 ? edge : edge + 1);
}

/** How much is added at once: mostly little, as what is large takes most of the time. */
const drawRoom = (draw: Draw): number =>
  draw.oneIn(12) ? maxInputBytes / 2 : draw.oneIn(4) ? 16_384 : draw.between(16, 2_048);

function flipBit(bytes: Buffer, draw: Draw): Buffer {
  const at = placeIn(bytes, draw);
  if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << draw.below(8));
  return bytes;
}

function setByte(bytes: Buffer, draw: Draw): Buffer {
  const at = placeIn(bytes, draw);
  if (at < bytes.length) bytes[at] = draw.pick([0, 1, 0x7f, 0x80, 0xff, draw.below(256)]);
  return bytes;
}

/** Blows up what may be a length, a count or an offset. */
function writeInteger(bytes: Buffer, draw: Draw): Buffer {
  const numBytes = draw.pick([1, 2, 4, 8]);
  if (bytes.length < numBytes) return bytes;
  const at = Math.min(placeIn(bytes, draw), bytes.length - numBytes);
  let value = draw.pick(hostileIntegers) + BigInt(draw.below(3) - 1);
  for (let i = 0; i < numBytes; i++) {
    bytes[at + i] = Number(value & 0xffn);
    value >>= 8n;
  }
  return bytes;
}

function truncate(bytes: Buffer, draw: Draw): Buffer {
  return bytes.subarray(0, placeIn(bytes, draw));
}

function remove(bytes: Buffer, draw: Draw): Buffer {
  const at = placeIn(bytes, draw);
  const end = at + draw.between(1, draw.oneIn(4) ? 4096 : 16);
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
}

/** A part over and over: keys twice, lists of thousands. */
function repeat(bytes: Buffer, draw: Draw): Buffer {
  const at = placeIn(bytes, draw);
  const part = bytes.subarray(at, at + draw.between(1, draw.oneIn(4) ? 1024 : 32));
  if (part.length === 0) return bytes;
  const times = draw.oneIn(8) ? Math.ceil(drawRoom(draw) / part.length) : draw.between(1, 4);
  return insert(bytes, draw, Buffer.concat(Array.from({ length: times }, () => part)), at);
}

function insertBytes(bytes: Buffer, draw: Draw): Buffer {
  const part = Buffer.from(Array.from({ length: draw.between(1, 8) }, () => draw.below(256)));
  return insert(bytes, draw, part);
}

function insertText(bytes: Buffer, draw: Draw): Buffer {
  return insert(bytes, draw, draw.pick(hostileTexts));
}

/** Depth that a recursive reader has no stack for. */
function nest(bytes: Buffer, draw: Draw): Buffer {
  const opener = draw.pick(["[", '{"a":', "(", "- ", "{% if true %}", "{{ (", "\x0a\x02", "not "]);
  const depth = Math.ceil(drawRoom(draw) / opener.length);
  const closer = draw.oneIn(2) ? "" : opener === "[" ? "]" : opener === "(" ? ")" : "}";
  const at = placeIn(bytes, draw);
  const deep = Buffer.from(opener.repeat(depth) + closer.repeat(closer === "" ? 0 : depth));
  return Buffer.concat([bytes.subarray(0, at), deep, bytes.subarray(at)]);
}

/** The beginning of one input and the end of another. */
function splice(bytes: Buffer, draw: Draw, corpus: readonly Uint8Array[]): Buffer {
  const other = Buffer.from(draw.pick(corpus));
  return Buffer.concat([
    bytes.subarray(0, placeIn(bytes, draw)),
    other.subarray(placeIn(other, draw)),
  ]);
}

function swap(bytes: Buffer, draw: Draw): Buffer {
  const numBytes = draw.between(1, 32);
  if (bytes.length < 2 * numBytes) return bytes;
  const [a, b] = [placeIn(bytes, draw), placeIn(bytes, draw)].map((at) =>
    Math.min(at, bytes.length - numBytes),
  ) as [number, number];
  const first = Buffer.from(bytes.subarray(a, a + numBytes));
  bytes.copy(bytes, a, b, b + numBytes);
  first.copy(bytes, b);
  return bytes;
}

function insert(bytes: Buffer, draw: Draw, part: Uint8Array, at = placeIn(bytes, draw)): Buffer {
  return Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at)]);
}
