import { fail, type Keywords, Undefined, type Value } from "./values.js";

/** Arguments of a call by the names of a function's parameters. */
export class Arguments {
  readonly #function: string;
  readonly #values = new Map<string, Value>();

  /** @throws TemplateError for arguments that the function does not have */
  constructor(
    name: string,
    parameters: readonly string[],
    args: readonly Value[],
    keywords: Keywords = new Map(),
  ) {
    this.#function = name;
    if (args.length > parameters.length) {
      fail(`TypeError: ${name}() takes at most ${parameters.length} arguments, not ${args.length}`);
    }
    for (const [i, value] of args.entries()) this.#values.set(parameters[i] ?? "", value);
    for (const [key, value] of keywords) {
      if (!parameters.includes(key)) fail(`TypeError: ${name}() has no argument '${key}'`);
      if (this.#values.has(key)) fail(`TypeError: ${name}() got '${key}' twice`);
      this.#values.set(key, value);
    }
  }

  get(parameter: string): Value | undefined {
    return this.#values.get(parameter);
  }

  /** null and an absent argument are the same. */
  text(parameter: string): string | undefined {
    const value = this.get(parameter) ?? undefined;
    if (value === undefined || typeof value === "string") return value;
    return this.#wrong(parameter, value, "a text");
  }

  requiredText(parameter: string): string {
    return this.text(parameter) ?? this.#wrong(parameter, new Undefined("missing"), "a text");
  }

  integer(parameter: string): number | undefined {
    const value = this.get(parameter) ?? undefined;
    if (value === undefined) return undefined;
    if (typeof value === "boolean") return value ? 1 : 0;
    if (typeof value === "bigint") return Number(value);
    return this.#wrong(parameter, value, "a whole number");
  }

  #wrong(parameter: string, value: Value, expected: string): never {
    if (value instanceof Undefined && value.problem !== "missing") fail(value.problem);
    return fail(`TypeError: ${this.#function}(): '${parameter}' is not ${expected}`);
  }
}
