import type { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { describeType } from "./describe-type.js";
import { type ConfigKey, fields, isConfigKey, secretKeys } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { show } from "./show.js";

/** Every value that is wrong, in one message. */
export function invalidValues(
  error: z.ZodError,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
): LockstepError<"E_CONFIG_INVALID"> {
  const order = [...given.keys()] as readonly string[];
  const issues = error.issues
    .map((issue) => describeIssue(issue, given))
    .sort((a, b) => order.indexOf(keyOf(a)) - order.indexOf(keyOf(b)));
  // Several issues of one value, as of a list's elements, are one mistake.
  const keys = issues.map(keyOf);
  const [first, ...more] = issues.filter((each, i) => keys.indexOf(keyOf(each)) === i);
  const { key = "?", expected = "valid", got = "", where = "" } = first ?? {};
  const inWords = more.map(
    (each) =>
      `${each.key} must be ${each.expected}, got ${each.got}${each.where === "" ? "" : ` (${each.where})`}`,
  );
  const others = more.length === 0 ? {} : { more: inWords };
  return new LockstepError("E_CONFIG_INVALID", { key, expected, got, where, ...others });
}

const keyOf = ({ key }: { readonly key: string }): string => key.split(".", 1)[0] ?? key;

function describeIssue(issue: z.core.$ZodIssue, given: ReadonlyMap<ConfigKey, SourcedValue>) {
  const key = String(issue.path[0] ?? "?");
  const sourced = isConfigKey(key) ? given.get(key) : undefined;
  return {
    key: issue.path.map(String).join("."),
    expected: isConfigKey(key) ? describeType(fields[key]) : "valid",
    got: secretKeys.some((secret) => secret === key)
      ? `a secret of another kind (${typeof sourced?.value})`
      : `${show(sourced?.value)}${isQuotedNumber(sourced?.value) ? " in quotes" : ""}`,
    where: sourced?.where ?? "",
  };
}

/** A number that YAML reads as text, because it is quoted. */
const isQuotedNumber = (value: unknown): boolean =>
  typeof value === "string" && value.trim() !== "" && Number.isFinite(Number(value));
