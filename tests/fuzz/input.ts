import fc from "fast-check";
import { mutateBytes } from "./byte-mutations.js";
import { Draw } from "./draw.js";
import { mutateJson } from "./json-mutations.js";
import type { ByteReader, PropertyReader } from "./target.js";

/** Which input: all that is needed to make it again. */
interface InputKey {
  readonly target: string;
  readonly seed: number;
  /** Its number. */
  readonly input: number;
}

/** The bytes of one input of a reader. */
export function inputBytes(reader: ByteReader, { target, seed, input }: InputKey): Buffer {
  const draw = new Draw(seed, target, input);
  const { corpus, form, words, generate } = reader;
  if (generate !== undefined && draw.oneIn(2)) {
    const made = Buffer.from(generate(draw, corpus));
    return draw.oneIn(4) ? mutateBytes(made, draw, corpus, words) : made;
  }
  const valid = draw.pick(corpus);
  // Bytes as they came are among the inputs, so that a reader that refuses everything shows.
  if (draw.oneIn(100)) return Buffer.from(valid);
  if (form === "json" && !draw.oneIn(3)) {
    const changed = mutateJson(valid, draw);
    return draw.oneIn(8) ? mutateBytes(changed, draw, corpus, words) : changed;
  }
  return mutateBytes(valid, draw, corpus, words);
}

/** The value of one input of a property; numbers follow each other's sizes, as fast-check draws them. */
export function inputValue(reader: PropertyReader, { target, seed, input }: InputKey): unknown {
  const draw = new Draw(seed, target, input);
  return fc
    .sample(reader.arbitrary, { seed: draw.uint32() | 0, numRuns: 1 + draw.below(3) })
    .at(-1);
}
