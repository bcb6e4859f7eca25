import { float32ToBfloat16, float32ToFloat16 } from "#lib/core/bf16";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { KeptArray } from "#lib/core/shard-arrays";
import { conversionChunkBytes } from "./limits.js";

/** A tensor's float32 elements in memory: in one array, or one after the other in several. */
export interface TensorParts {
  readonly parts: readonly Float32Array[];
  /** They are trained weights after so many steps, all of which have to be finite. */
  readonly finiteAfterStep?: number;
}

/** The same where some may be elsewhere. */
interface KeptParts extends Pick<TensorParts, "finiteAfterStep"> {
  readonly parts: readonly KeptArray[];
}

export type TensorValues = KeptArray | KeptParts;

const partsOf = (values: TensorValues): KeptParts =>
  "parts" in values ? values : { parts: [values] };

/** From here on a number rounds to infinity: half a step above the largest that a half type holds. */
const firstInfinite = Object.freeze({ bfloat16: (2 - 2 ** -8) * 2 ** 127, float16: 65_520 });

/**
 * Elements as stored bytes, a chunk at a time; float32 needs no copy. What is not iterated can be handed to another
 * thread, which encodes it there.
 */
export class EncodedElements implements Iterable<Uint8Array> {
  readonly values: TensorParts;
  readonly dtype: FloatDtype;
  /** Its name. */
  readonly tensor: string;

  constructor(values: TensorParts, dtype: FloatDtype, tensor: string) {
    this.values = values;
    this.dtype = dtype;
    this.tensor = tensor;
  }

  get sizeBytes(): number {
    return sizeOf(this.values, this.dtype);
  }

  /** @throws E_TENSOR_RANGE for a finite number that the type does not hold; E_NON_FINITE_WEIGHTS */
  *[Symbol.iterator](): Generator<Uint8Array> {
    const { parts, finiteAfterStep: step } = this.values;
    for (const part of parts) {
      if (step !== undefined) this.#requireFinite(part, step);
      yield* this.dtype === "float32" ? [bytesOf(part)] : this.#narrowed(part, this.dtype);
    }
  }

  /** A run may end with the step that spoiled them, before any gradient tells. */
  #requireFinite(part: Float32Array, step: number): void {
    // The sum of what is finite may overflow; what is not never adds up to something finite.
    let sum = 0;
    for (let i = 0; i < part.length; i++) sum += part[i] as number;
    if (Number.isFinite(sum)) return;
    const value = part.find((each) => !Number.isFinite(each));
    if (value === undefined) return;
    throw new LockstepError("E_NON_FINITE_WEIGHTS", { step, tensor: this.tensor, value });
  }

  *#narrowed(values: Float32Array, dtype: "bfloat16" | "float16"): Generator<Uint8Array> {
    const narrow = dtype === "bfloat16" ? float32ToBfloat16 : float32ToFloat16;
    const limit = firstInfinite[dtype];
    const chunkElements = conversionChunkBytes / 2;
    const halves = new Uint16Array(Math.min(chunkElements, values.length));
    for (let done = 0; done < values.length; done += chunkElements) {
      const part = values.subarray(done, done + chunkElements);
      narrow(part, halves);
      let largest = 0;
      for (let i = 0; i < part.length; i++) {
        const size = Math.abs(part[i] as number);
        if (size > largest && size !== Number.POSITIVE_INFINITY) largest = size;
      }
      if (largest >= limit) {
        const value = part.find((each) => Math.abs(each) >= limit && Number.isFinite(each));
        const { tensor } = this;
        if (value !== undefined)
          throw new LockstepError("E_TENSOR_RANGE", { tensor, value, dtype });
      }
      yield new Uint8Array(halves.buffer, 0, part.length * 2);
    }
  }
}

/** Elements of which some are elsewhere: what is written of them is fetched a piece at a time. */
export class DistantElements {
  readonly #values: KeptParts;
  readonly #dtype: FloatDtype;
  readonly #tensor: string;

  constructor(values: KeptParts, dtype: FloatDtype, tensor: string) {
    this.#values = values;
    this.#dtype = dtype;
    this.#tensor = tensor;
  }

  get sizeBytes(): number {
    return sizeOf(this.#values, this.#dtype);
  }

  /** In order, each in memory until the next is asked for. */
  async *fetched(): AsyncGenerator<EncodedElements> {
    const { parts, finiteAfterStep } = this.#values;
    for (const part of parts) {
      for await (const piece of part instanceof Float32Array ? [part] : part.pieces()) {
        const values = {
          parts: [piece],
          ...(finiteAfterStep === undefined ? {} : { finiteAfterStep }),
        };
        yield new EncodedElements(values, this.#dtype, this.#tensor);
      }
    }
  }
}

/** @param tensor its name */
export function encodeElements(
  values: Float32Array | TensorParts,
  dtype: FloatDtype,
  tensor: string,
): EncodedElements;
export function encodeElements(
  values: TensorValues,
  dtype: FloatDtype,
  tensor: string,
): EncodedElements | DistantElements;
export function encodeElements(
  values: TensorValues,
  dtype: FloatDtype,
  tensor: string,
): EncodedElements | DistantElements {
  const kept = partsOf(values);
  return isInMemory(kept)
    ? new EncodedElements(kept, dtype, tensor)
    : new DistantElements(kept, dtype, tensor);
}

const isInMemory = (values: KeptParts): values is TensorParts =>
  values.parts.every((part) => part instanceof Float32Array);

const sizeOf = ({ parts }: KeptParts, dtype: FloatDtype): number =>
  parts.reduce((sum, { length }) => sum + length, 0) * bytesPerElement[dtype];

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);
