import { LockstepError } from "#lib/core/errors/index";
import { type Activation, activationNames } from "./activation.js";

/** Far beyond any model. */
const maxLayers = 4_096;

/** Reads keys of a parsed config.json with their types, and refuses what would change the arithmetic. */
export class ConfigReader {
  readonly #model: string;
  readonly #config: Readonly<Record<string, unknown>>;

  constructor(model: string, config: Readonly<Record<string, unknown>>) {
    this.#model = model;
    this.#config = config;
  }

  #fail(key: string, expected: string): never {
    const value = this.#config[key];
    throw new LockstepError("E_MODEL_CONFIG", {
      model: this.#model,
      key,
      expected,
      got: value === undefined ? "nothing" : JSON.stringify(value),
    });
  }

  positiveInt(key: string, fallback?: number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#config[key] ?? fallback;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value <= 0 || value > max) {
      const limit = max === Number.MAX_SAFE_INTEGER ? "" : ` of at most ${max}`;
      return this.#fail(key, `a positive integer${limit}`);
    }
    return value;
  }

  /** A number of layers: lists of weights are made of it before a file is compared with them. */
  layerCount(key: string | readonly string[], fallback?: number): number {
    return this.anyPositiveInt(typeof key === "string" ? [key] : key, fallback, maxLayers);
  }

  /** By the first of several names that is there. */
  anyPositiveInt(keys: readonly string[], fallback?: number, max?: number): number {
    const key = keys.find((each) => this.isSet(each)) ?? keys[0] ?? "";
    return this.positiveInt(key, fallback, max);
  }

  nonNegativeInt(key: string, fallback: number): number {
    const value = this.#config[key] ?? fallback;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
      return this.#fail(key, "a whole number from 0");
    }
    return value;
  }

  positiveNumber(key: string, fallback?: number): number {
    const value = this.#config[key] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      return this.#fail(key, "a positive number");
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.#config[key] ?? fallback;
    return typeof value === "boolean" ? value : this.#fail(key, "true or false");
  }

  string(key: string, fallback: string): string {
    const value = this.#config[key] ?? fallback;
    return typeof value === "string" ? value : this.#fail(key, "a string");
  }

  record(key: string): Readonly<Record<string, unknown>> | undefined {
    const value = this.#config[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) return this.#fail(key, "an object");
    return value as Readonly<Record<string, unknown>>;
  }

  /** A positive number, or null where the key is absent or null. */
  optionalNumber(key: string): number | null {
    return this.isSet(key) ? this.positiveNumber(key) : null;
  }

  isSet(key: string): boolean {
    return this.#config[key] !== undefined && this.#config[key] !== null;
  }

  /** Whether the key is there at all, if only with null. */
  has(key: string): boolean {
    return this.#config[key] !== undefined;
  }

  /** A positive integer; null where the key is null; `fallback` where it is absent. */
  nullableInt(key: string, fallback: number | null): number | null {
    if (!this.has(key)) return fallback;
    return this.isSet(key) ? this.positiveInt(key) : null;
  }

  /** A list of one element a layer or rotary pair. */
  list<T extends "string" | "number">(
    key: string,
    element: T,
    length: number,
  ): readonly (T extends "string" ? string : number)[] {
    const value = this.#config[key];
    if (
      !Array.isArray(value) ||
      value.length !== length ||
      !value.every((entry) => typeof entry === element)
    ) {
      return this.#fail(key, `a list of ${length} ${element}s`);
    }
    return value as (T extends "string" ? string : number)[];
  }

  /** The name of an activation function. */
  activation(key: string, fallback: Activation): Activation {
    const value = this.string(key, fallback);
    const known = activationNames.find((name) => name === value);
    return known ?? this.unsupported(`${key} = ${JSON.stringify(value)}`);
  }

  /**
   * A token id. Torch counts a negative one from the end of the table.
   *
   * @returns null where there is none, or none in the vocabulary
   */
  paddingRow(vocabSize: number, fallback: number | null): number | null {
    const id = this.tokenId("pad_token_id", fallback);
    if (id === null || id >= vocabSize || id < -vocabSize) return null;
    return id < 0 ? id + vocabSize : id;
  }

  tokenId(key: string, fallback: number | null): number | null {
    const value = this.has(key) ? this.#config[key] : fallback;
    if (value === null) return null;
    if (typeof value !== "number" || !Number.isSafeInteger(value)) {
      return this.#fail(key, "a token id");
    }
    return value;
  }

  unsupported(what: string): never {
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `${this.#model}: ${what}` });
  }

  /** Fails with what was expected of a key whose value has the right type. */
  refuse(key: string, expected: string): never {
    return this.#fail(key, expected);
  }

  /** Fails unless the key is absent or has the one supported value. */
  only(key: string, supported: string | number | boolean): void {
    const value = this.#config[key] ?? supported;
    if (value !== supported) this.unsupported(`${key} = ${JSON.stringify(value)}`);
  }
}
