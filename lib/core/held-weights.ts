import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
} from "./bf16.js";
import { computeDtypes, type FloatDtype, isNf4, type Precision, type WireForm } from "./dtype.js";
import { nf4GroupElements } from "./nf4.js";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  type Region,
  wireOffsetBytes,
} from "./parameter-layout.js";

/** A worker's weights of one space: those that it was sent, and those that its engine holds. */
export interface Fingerprint {
  readonly space: "trained" | "frozen";
  /** Digests, hexadecimal: equal weights have equal ones, whoever computes them. */
  readonly sent: string;
  readonly held: string;
}

/**
 * A space as an engine holds it: matrices in compute type, or in their 4 bits, vectors in float32. Where its regions
 * are, and where tensors lie in them, is as in the space that travels.
 */
export function heldLayout(layout: ParameterLayout, precision: Precision): ParameterLayout {
  const regions = layout.regions.map((region): Region => {
    const first = layout.tensors.find(
      ({ offset }) => offset >= region.start && offset < region.end,
    );
    if (isNf4(region.dtype)) return region;
    const isMatrix = first !== undefined && first.shape.length >= 2;
    return { ...region, dtype: isMatrix ? computeDtypes[precision] : "float32" };
  });
  return { ...layout, regions };
}

/**
 * The digest of a space's weights in the form in which an engine holds them: CRC-32 of each block, which no flipped
 * bit leaves as it was, and SHA-256 of these. Ranges come one after the other, from the first element to the last.
 */
export class HeldDigest {
  readonly #layout: ParameterLayout;
  readonly #held: ParameterLayout;
  readonly #blocks: Uint32Array;

  constructor(layout: ParameterLayout, precision: Precision) {
    this.#layout = layout;
    this.#held = heldLayout(layout, precision);
    this.#blocks = new Uint32Array(layout.numElements / blockElements);
  }

  /** @param bytes the range in wire form */
  addSent(range: ElementRange, bytes: Uint8Array): void {
    this.#add(this.#layout, range, bytes);
  }

  /** @param bytes the range in the form of `heldLayout` */
  addHeld(range: ElementRange, bytes: Uint8Array): void {
    this.#add(this.#held, range, bytes);
  }

  get hex(): string {
    const { buffer, byteOffset, byteLength } = this.#blocks;
    return createHash("sha256")
      .update(new Uint8Array(buffer, byteOffset, byteLength))
      .digest("hex");
  }

  /** What lies between tensors is no weight, and no engine holds it. */
  #add(layout: ParameterLayout, range: ElementRange, bytes: Uint8Array): void {
    const firstByte = wireOffsetBytes(layout, range.start);
    const regions = layout.regions.map(({ start, end, dtype }, index) => {
      const to = this.#held.regions[index]?.dtype ?? dtype;
      return { start, end, dtype, to, isConverted: this.#layout.regions[index]?.dtype !== to };
    });
    for (const { offset, size } of layout.tensors) {
      const region = regions.find(({ start, end }) => offset >= start && offset < end);
      if (region === undefined) continue;
      const { dtype, to, isConverted } = region;
      // What 4 bits keep together is held whole.
      const whole = isNf4(dtype) ? Math.ceil(size / nf4GroupElements) * nf4GroupElements : size;
      const last = Math.min(offset + whole, range.end);
      for (let from = Math.max(offset, range.start); from < last; ) {
        const block = Math.floor(from / blockElements);
        const next = Math.min((block + 1) * blockElements, last);
        const part = bytes.subarray(
          wireOffsetBytes(layout, from) - firstByte,
          wireOffsetBytes(layout, next) - firstByte,
        );
        const held = isConverted ? converted(part, dtype, to) : part;
        this.#blocks[block] = crc32(held, this.#blocks[block]);
        from = next;
      }
    }
  }
}

/** Values in another type. Devices differ in the smallest bfloat16 numbers, which count as 0. */
function converted(part: Uint8Array, from: WireForm, to: WireForm): Uint8Array {
  if (from === to && to !== "bfloat16") return part;
  // At an address that arrays of wider elements may begin at.
  const { buffer, byteLength } = part.slice();
  const wide =
    from === "float32"
      ? new Float32Array(buffer, 0, byteLength / 4)
      : (from === "bfloat16" ? bfloat16ToFloat32 : float16ToFloat32)(
          new Uint16Array(buffer, 0, byteLength / 2),
        );
  const values = narrowed(wide, to as FloatDtype);
  if (to === "bfloat16") {
    for (let i = 0; i < values.length; i++) {
      if (((values[i] as number) & smallestNormal) === 0) values[i] = 0;
    }
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The bits of a bfloat16's exponent: without any it is 0, or smaller than what all devices compute with. */
const smallestNormal = 0x7f80;

function narrowed(values: Float32Array, to: FloatDtype): Float32Array | Uint16Array {
  if (to === "float32") return values;
  return to === "bfloat16" ? float32ToBfloat16(values) : float32ToFloat16(values);
}
