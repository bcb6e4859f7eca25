import { LockstepError } from "#lib/core/errors/index";

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

  /** Fails unless the key is absent or has the one supported value. */
  only(key: string, supported: string | number | boolean): void {
    const value = this.#config[key] ?? supported;
    if (value !== supported) {
      throw new LockstepError("E_MODEL_UNSUPPORTED", {
        what: `${this.#model}: ${key} = ${JSON.stringify(value)}`,
      });
    }
  }
}
