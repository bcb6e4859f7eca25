import { z } from "zod";

/** What a key accepts, in words: "a number of at least 0", "one of linear, cosine". */
export function describeType(schema: z.ZodType): string {
  if (schema instanceof z.ZodDefault) return describeType(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodNullable) {
    return `${describeType(schema.unwrap() as z.ZodType)}, or null`;
  }
  if (schema instanceof z.ZodPipe) return describeType(schema.in as z.ZodType);
  if (schema instanceof z.ZodBoolean) return "true or false";
  if (schema instanceof z.ZodLiteral) return [...schema.values].map(String).join(" or ");
  if (schema instanceof z.ZodString) return "text";
  if (schema instanceof z.ZodISODate) return "a day as YYYY-MM-DD";
  if (schema instanceof z.ZodEnum) return `one of ${schema.options.join(", ")}`;
  if (schema instanceof z.ZodArray) {
    return `a list of ${describeType(schema.element as z.ZodType)}`;
  }
  if (schema instanceof z.ZodObject) {
    const each = Object.entries(schema.shape).map(
      ([key, value]) => `${key} (${describeType(value as z.ZodType)})`,
    );
    return `mappings with ${each.join(", ")}`;
  }
  if (schema instanceof z.ZodUnion) {
    return schema.options.map((option) => describeType(option as z.ZodType)).join(", or ");
  }
  if (schema instanceof z.ZodRecord) {
    const { keyType, valueType } = schema;
    if (keyType instanceof z.ZodEnum) return `a mapping of ${keyType.options.join(", ")}`;
    const isOfNumbers = valueType instanceof z.ZodNumber;
    return isOfNumbers ? `a mapping of names, each to ${describeNumber(valueType)}` : "a mapping";
  }
  if (schema instanceof z.ZodNumber) return describeNumber(schema);
  return "another value";
}

function describeNumber(schema: z.ZodNumber): string {
  const refinement = schema.def.checks?.findLast((check) => check._zod.def.check === "custom");
  if (refinement !== undefined) {
    const { error } = refinement._zod.def;
    const message: unknown = typeof error === "function" ? error({} as never) : undefined;
    if (typeof message === "string") return message;
  }
  const noun = schema.format === "safeint" ? "a whole number" : "a number";
  const bounds: string[] = [];
  for (const check of schema.def.checks ?? []) {
    const def = check._zod.def as { check: string; value?: number; inclusive?: boolean };
    if (def.check === "greater_than") {
      bounds.push(def.inclusive ? `at least ${def.value}` : `more than ${def.value}`);
    } else if (def.check === "less_than") {
      bounds.push(def.inclusive ? `at most ${def.value}` : `less than ${def.value}`);
    }
  }
  return bounds.length === 0 ? noun : `${noun} of ${bounds.join(" and ")}`;
}
