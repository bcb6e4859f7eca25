import { LockstepError } from "./errors/index.js";

/**
 * NF4, the 4-bit type of QLoRA (Dettmers et al. 2023, arXiv 2305.14314), as bitsandbytes 0.50 stores it: 16 levels
 * times the largest magnitude of 64 elements, the first of two elements in the high half of a byte. With double
 * quantisation the magnitudes are in 8 bits too: less their mean, as codes of the signed dynamic map times the
 * largest of 256.
 *
 * The numbers are those of bitsandbytes' packed tensors; where they lie is made for spaces that are cut and sent in
 * parts: a group of 16,384 elements has all that it needs, and a tensor begins with a group. A group is the packed
 * elements (8192 bytes), then its scales: 256 magnitudes in float32 (nf4), or 256 codes, their factor and the
 * tensor's mean in float32, and padding to 64 bytes (nf4-double).
 */
export type Nf4Form = "nf4" | "nf4-double";

/** Elements that share a magnitude. */
export const nf4BlockElements = 64;
/** Elements that lie together with their scales: blocks of one factor. */
export const nf4GroupElements = 16_384;
export const nf4BlocksPerGroup = nf4GroupElements / nf4BlockElements;
export const nf4PackedBytes = nf4GroupElements / 2;
export const nf4GroupBytes: Readonly<Record<Nf4Form, number>> = Object.freeze({
  nf4: nf4PackedBytes + nf4BlocksPerGroup * 4,
  "nf4-double": nf4PackedBytes + nf4BlocksPerGroup + 64,
});
/** Where in a group of nf4-double the factor of its codes is; the mean follows. */
export const nf4FactorByte = nf4PackedBytes + nf4BlocksPerGroup;

/** The levels, quantiles of a normal distribution, by code. */
export const nf4Levels: Readonly<Float32Array> = Float32Array.of(
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635],
  ...[-0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725],
  ...[0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941],
  ...[0.7229568362236023, 1],
);

const { fround } = Math;

/** What the codes of double quantisation stand for: bitsandbytes' signed dynamic map, to its last bits. */
export const nf4ScaleLevels: Readonly<Float32Array> = scaleLevels();

/** torch.linspace from 0.1 to 1 for each decade, from both its ends, with sums that are rounded once. */
function scaleLevels(): Float32Array {
  const magnitudes = Array.from({ length: 7 }, (_, decade) => {
    const numParts = 2 ** decade;
    const step = fround((1 - fround(0.1)) / numParts);
    const bound = (i: number): number =>
      fround(2 * i < numParts ? fround(0.1) + step * i : 1 - step * (numParts - i));
    return Array.from({ length: numParts }, (__, part) =>
      fround(fround(10 ** (decade - 6)) * fround(fround(bound(part) + bound(part + 1)) / 2)),
    );
  }).flat();
  const negative = magnitudes.map((each) => -each).reverse();
  return Float32Array.from([...negative, 0, ...magnitudes, 1]);
}

/** By which bitsandbytes keeps a block of zeros from a division by 0. */
const leastMagnitude = fround(1e-38);

const midpointsOf = (levels: Readonly<Float32Array>): Float32Array =>
  Float32Array.from(levels.subarray(1), (level, i) =>
    fround(fround((levels[i] as number) + level) / 2),
  );
const thresholds = midpointsOf(nf4Levels);

/**
 * Parts of a unit among which every threshold has one of its own. The first and the last part are for what rounding
 * takes out of -1 to 1.
 */
const partsPerUnit = 16;
const partOf = (scaled: number): number => (scaled * partsPerUnit + partsPerUnit + 1) | 0;
const firstCodes = new Uint8Array(2 * partsPerUnit + 3);
const partThresholds = new Float32Array(firstCodes.length).fill(Number.POSITIVE_INFINITY);
for (let part = 0; part < firstCodes.length; part++) {
  firstCodes[part] = thresholds.filter((threshold) => partOf(threshold) < part).length;
  const within = thresholds.find((threshold) => partOf(threshold) === part);
  if (within !== undefined) partThresholds[part] = within;
}

/** The level nearest to a value from -1 to 1; halfway the lower one. NaN gives the first. */
function codeOf(scaled: number): number {
  const part = partOf(scaled);
  return (firstCodes[part] as number) + (scaled > (partThresholds[part] as number) ? 1 : 0);
}

/** Quantises one tensor, given in parts, in memory of its size in the form. */
export class Nf4Writer {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #groupBytes: number;
  readonly #isDouble: boolean;
  readonly #name: string;
  readonly #size: number;
  readonly #magnitudes: Float32Array;
  #numElements = 0;

  /**
   * @param tensor its name, and how many elements it has
   * @param bytes zeros, of `nf4GroupBytes` for each group that the tensor begins
   */
  constructor(
    form: Nf4Form,
    { name, size }: { readonly name: string; readonly size: number },
    bytes: Uint8Array,
  ) {
    this.#isDouble = form === "nf4-double";
    this.#groupBytes = nf4GroupBytes[form];
    if (bytes.length !== Math.ceil(size / nf4GroupElements) * this.#groupBytes) {
      throw new RangeError(`${bytes.length} bytes are not those of ${size} elements in ${form}`);
    }
    this.#name = name;
    this.#size = size;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#magnitudes = new Float32Array(Math.ceil(size / nf4BlockElements));
  }

  /**
   * @param values the elements that follow; whole blocks, but for the tensor's end
   * @throws E_TENSOR_NOT_FINITE, as a level would stand for what is no number
   */
  add(values: Float32Array): void {
    const end = this.#numElements + values.length;
    if (end > this.#size || (end % nf4BlockElements !== 0 && end !== this.#size)) {
      throw new RangeError(`${values.length} elements at ${this.#numElements} of ${this.#size}`);
    }
    for (let start = 0; start < values.length; start += nf4BlockElements) {
      this.#addBlock(values, start, Math.min(start + nf4BlockElements, values.length));
    }
  }

  #addBlock(values: Float32Array, start: number, end: number): void {
    let magnitude = 0;
    // NaN once an element is infinite or none.
    let nothing = 0;
    for (let i = start; i < end; i++) {
      const each = Math.abs(values[i] as number);
      nothing += each - each;
      if (each > magnitude) magnitude = each;
    }
    if (nothing !== 0) this.#refuse(values.subarray(start, end));
    const isWhole = end - start === nf4BlockElements;
    const divisor = Math.max(magnitude, leastMagnitude);
    const first = this.#numElements;
    this.#magnitudes[first / nf4BlockElements] = isWhole ? magnitude : divisor;
    const group = Math.floor(first / nf4GroupElements);
    const at = group * this.#groupBytes + (first % nf4GroupElements) / 2;
    this.#numElements += end - start;
    const bytes = this.#bytes;
    // bitsandbytes multiplies a whole block by the inverse, and divides a shorter one.
    const inverse = fround(1 / divisor);
    if (isWhole) {
      for (let i = 0; i < nf4BlockElements; i += 2) {
        const high = codeOf(fround((values[start + i] as number) * inverse));
        bytes[at + (i >> 1)] =
          (high << 4) | codeOf(fround((values[start + i + 1] as number) * inverse));
      }
      return;
    }
    for (let i = start; i < end; i += 2) {
      // What the last byte has no element for is a 0.
      const next = i + 1 < end ? (values[i + 1] as number) : 0;
      const high = codeOf(fround((values[i] as number) / divisor));
      bytes[at + ((i - start) >> 1)] = (high << 4) | codeOf(fround(next / divisor));
    }
  }

  #refuse(block: Float32Array): never {
    const value = block.find((each) => !Number.isFinite(each)) as number;
    throw new LockstepError("E_TENSOR_NOT_FINITE", {
      ...{ where: "the base model", tensor: this.#name, value },
    });
  }

  /** Writes the scales; to be called once, behind the last element. */
  finish(): void {
    if (this.#numElements !== this.#size) {
      throw new RangeError(`${this.#numElements} of ${this.#size} elements were given`);
    }
    // The sum is exact to float64, whoever adds; torch's order depends on its processor and threads.
    const sum = this.#magnitudes.reduce((total, each) => total + each, 0);
    const mean = fround(sum / this.#magnitudes.length);
    for (let group = 0; group * this.#groupBytes < this.#bytes.length; group++) {
      const start = group * nf4BlocksPerGroup;
      const magnitudes = this.#magnitudes.subarray(start, start + nf4BlocksPerGroup);
      if (this.#isDouble) this.#writeCodes(group, magnitudes, mean);
      else {
        const at = group * this.#groupBytes + nf4PackedBytes;
        magnitudes.forEach((each, i) => this.#view.setFloat32(at + 4 * i, each, true));
      }
    }
  }

  #writeCodes(group: number, magnitudes: Float32Array, mean: number): void {
    const differences = magnitudes.map((each) => each - mean);
    const factor = differences.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
    const inverse = factor === 0 ? 0 : fround(1 / factor);
    const at = group * this.#groupBytes;
    differences.forEach((each, i) => {
      this.#bytes[at + nf4PackedBytes + i] = scaleCodeOf(fround(each * inverse));
    });
    this.#view.setFloat32(at + nf4FactorByte, factor, true);
    this.#view.setFloat32(at + nf4FactorByte + 4, mean, true);
  }
}

/**
 * Codes of scales by 65,536 equal parts of -1 to 1: bitsandbytes' kernel for processors looks a code up for the
 * middle of a value's part, so that it is not always the nearest one.
 */
const scaleCodes = new Uint8Array(65_536);
for (let [part, code] = [0, 0]; part < scaleCodes.length; part++) {
  const middle = (2 * part) / (scaleCodes.length - 1) - 1;
  const isAbove = (at: number): boolean =>
    middle > ((nf4ScaleLevels[at] as number) + (nf4ScaleLevels[at + 1] as number)) / 2;
  while (code + 1 < nf4ScaleLevels.length && isAbove(code)) code++;
  scaleCodes[part] = code;
}

/** @param value from -1 to 1 */
const scaleCodeOf = (value: number): number =>
  scaleCodes[Math.floor(fround(fround(fround(value + 1) * 32_767.5) + 0.5))] as number;

/** The elements that a tensor's bytes stand for, float32: what `lib/graph` computes on a device. */
export function readNf4(form: Nf4Form, size: number, bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const group = Math.floor(i / nf4GroupElements) * nf4GroupBytes[form];
    const within = i % nf4GroupElements;
    const byte = bytes[group + (within >> 1)] as number;
    const level = nf4Levels[i % 2 === 0 ? byte >> 4 : byte & 15] as number;
    values[i] =
      level * magnitudeAt(form, bytes, view, group, Math.floor(within / nf4BlockElements));
  }
  return values;
}

function magnitudeAt(
  form: Nf4Form,
  bytes: Uint8Array,
  view: DataView,
  group: number,
  block: number,
): number {
  if (form === "nf4") return view.getFloat32(group + nf4PackedBytes + 4 * block, true);
  const level = nf4ScaleLevels[bytes[group + nf4PackedBytes + block] as number] as number;
  const factor = view.getFloat32(group + nf4FactorByte, true);
  return fround(fround(level * factor) + view.getFloat32(group + nf4FactorByte + 4, true));
}
