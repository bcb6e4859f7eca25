import { inspect } from "node:util";
import { isResolved } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";

/** What an argument of a program is to be, in words, with its test. */
export interface ArgumentRule {
  readonly expected: string;
  readonly isValid: (value: unknown) => boolean;
}

export const positiveInteger: ArgumentRule = {
  expected: "a whole number of at least 1",
  isValid: (value) => Number.isSafeInteger(value) && Number(value) > 0,
};

export const trueOrFalse: ArgumentRule = {
  expected: "true or false",
  isValid: (value) => typeof value === "boolean",
};

export const text: ArgumentRule = {
  expected: "text",
  isValid: (value) => typeof value === "string",
};

export const aFunction: ArgumentRule = {
  expected: "a function",
  isValid: (value) => typeof value === "function",
};

/** @throws E_ARGUMENT */
export function checkArgument(argument: string, value: unknown, rule: ArgumentRule): void {
  if (rule.isValid(value)) return;
  throw wrongArgument(argument, rule.expected, value);
}

export function wrongArgument(
  argument: string,
  expected: string,
  value: unknown,
): LockstepError<"E_ARGUMENT"> {
  // What an object holds is not shown: it may be a secret.
  const got = inspect(value, { depth: -1, maxStringLength: 60 });
  return new LockstepError("E_ARGUMENT", { argument, expected, got });
}

/**
 * Refuses an option that does not exist or has a value that means nothing; `undefined` is not given.
 *
 * @returns the options that are given
 * @throws E_ARGUMENT
 */
export function checkOptions<T extends object>(
  options: T,
  rules: { readonly [K in keyof Required<T>]: ArgumentRule },
): T {
  if (typeof options !== "object" || options === null) {
    throw wrongArgument("options", "an object", options);
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    const rule = Object.hasOwn(rules, name) ? rules[name as keyof T] : undefined;
    if (rule === undefined) {
      throw wrongArgument("an option", `one of ${Object.keys(rules).join(", ")}`, name);
    }
    checkArgument(name, value, rule);
  }
  return Object.fromEntries(given) as T;
}

/**
 * A configuration that `loadConfig` did not make, or a changed copy of one, was checked by nobody.
 *
 * @throws E_ARGUMENT
 */
export function checkConfig(config: unknown): void {
  checkArgument("config", config, {
    expected: "what loadConfig gives as config, unchanged (its overrides change keys)",
    isValid: isResolved,
  });
}
