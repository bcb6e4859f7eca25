import type { FieldArray } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";

/** A decoded message. */
export type Plain = Readonly<Record<string, unknown>>;

/** Longest text that a peer accepts in most fields, characters. */
export const maxControlTextChars = 4_096;

/** Reads fields of a decoded message; protobuf has given them their types, the rest is checked here. */
export class Fields {
  readonly #message: string;
  readonly #plain: Plain;

  constructor(message: string, plain: Plain) {
    this.#message = message;
    this.#plain = plain;
  }

  text(field: string, maxChars = maxControlTextChars): string {
    const value = this.#plain[field];
    if (typeof value !== "string") throw this.invalid(field, "is missing");
    if (value.length > maxChars) throw this.invalid(field, `has more than ${maxChars} characters`);
    return value;
  }

  count(field: string, max = 2 ** 32 - 1): number {
    const value = this.real(field);
    if (!Number.isInteger(value) || value < 0 || value > max) {
      throw this.invalid(field, `is ${value}, not an integer from 0 to ${max}`);
    }
    return value;
  }

  real(field: string): number {
    const value = this.#plain[field];
    if (typeof value !== "number") throw this.invalid(field, "is missing");
    return value;
  }

  amount(field: string): number {
    const value = this.real(field);
    if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) {
      throw this.invalid(field, `is ${value}, not a finite number of at least 0`);
    }
    return value;
  }

  flag(field: string): boolean {
    return this.#plain[field] === true;
  }

  oneOf<T extends string>(field: string, choices: readonly T[]): T {
    const value = this.#plain[field];
    const choice = choices.find((candidate) => candidate === value);
    if (choice === undefined) throw this.invalid(field, `is not one of ${choices.join(", ")}`);
    return choice;
  }

  nested(field: string): Fields {
    const value = this.#plain[field];
    if (typeof value !== "object" || value === null) throw this.invalid(field, "is missing");
    return new Fields(`${this.#message}.${field}`, value as Plain);
  }

  list(field: string, max: number): readonly unknown[] {
    const value = this.#plain[field];
    if (!Array.isArray(value)) throw this.invalid(field, "is missing");
    if (value.length > max) throw this.invalid(field, `has more than ${max} entries`);
    return value as readonly unknown[];
  }

  nestedList(field: string, max: number): readonly Fields[] {
    return this.list(field, max).map(
      (value, index) => new Fields(`${this.#message}.${field}[${index}]`, value as Plain),
    );
  }

  /** Whether a nested message is there. */
  has(field: string): boolean {
    const value = this.#plain[field];
    return typeof value === "object" && value !== null;
  }

  bytes(field: string, maxBytes = Number.POSITIVE_INFINITY): Buffer {
    const value = this.#plain[field];
    if (!Buffer.isBuffer(value)) throw this.invalid(field, "is missing");
    if (value.length > maxBytes) throw this.invalid(field, `has more than ${maxBytes} bytes`);
    return value;
  }

  values(field: string, dtype: "int32" | "float32"): FieldArray {
    const value = this.bytes(field);
    if (value.length % 4 !== 0) throw this.invalid(field, "has a length that is no multiple of 4");
    const size = value.length / 4;
    const values = dtype === "int32" ? new Int32Array(size) : new Float32Array(size);
    for (let i = 0; i < size; i++) {
      values[i] = dtype === "int32" ? value.readInt32LE(i * 4) : value.readFloatLE(i * 4);
    }
    return values;
  }

  invalid(field: string, reason: string): LockstepError {
    return new LockstepError("E_MESSAGE_INVALID", { message: this.#message, field, reason });
  }
}
