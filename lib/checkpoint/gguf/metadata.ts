import { LockstepError } from "#lib/core/errors/index";
import type { GgufFile, GgufValue } from "./reader.js";

/** Typed access to GGUF metadata; every failure names the file and the key. */
export class GgufMetadata {
  readonly file: string;
  readonly #values: ReadonlyMap<string, GgufValue>;

  constructor(gguf: GgufFile) {
    this.file = gguf.file;
    this.#values = gguf.metadata;
  }

  fail(key: string, problem: string): never {
    throw new LockstepError("E_GGUF_METADATA", { file: this.file, key, problem });
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** A whole number from `minimum` to `maximum`, or undefined when the key is absent. */
  optionalInteger(key: string, minimum: number, maximum: number): number | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isInteger(value)) {
      return this.fail(key, "is not a whole number");
    }
    if (value < minimum || value > maximum) {
      this.fail(key, `is ${value}, outside ${minimum} to ${maximum}`);
    }
    return value;
  }

  integer(key: string, minimum: number, maximum: number): number {
    return this.optionalInteger(key, minimum, maximum) ?? this.fail(key, "is missing");
  }

  /** A positive finite number: the shortest decimal that is the same float32, as it once was written. */
  optionalPositive(key: string): number | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      return this.fail(key, "is not a positive number");
    }
    for (let precision = 1; precision <= 9; precision++) {
      const shorter = Number(value.toPrecision(precision));
      if (Math.fround(shorter) === Math.fround(value)) return shorter;
    }
    return value;
  }

  positive(key: string): number {
    return this.optionalPositive(key) ?? this.fail(key, "is missing");
  }

  optionalString(key: string): string | undefined {
    const value = this.#values.get(key);
    if (value === undefined || typeof value === "string") return value;
    return this.fail(key, "is not a string");
  }

  optionalBoolean(key: string): boolean | undefined {
    const value = this.#values.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    return this.fail(key, "is not a boolean");
  }

  optionalStrings(key: string): readonly string[] | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) {
      return value as readonly string[];
    }
    return this.fail(key, "is not a list of strings");
  }

  optionalNumbers(key: string): readonly number[] | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((item) => typeof item === "number")) {
      return value as readonly number[];
    }
    return this.fail(key, "is not a list of numbers");
  }
}
