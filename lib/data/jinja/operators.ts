import { checkList, checkText, repeated, spendOn } from "./budget.js";
import { textOf } from "./text.js";
import {
  compare,
  equals,
  fail,
  isDict,
  iterate,
  numberOf,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** An operator of two values, but for `and` and `or`, which do not need both. @throws TemplateError */
export function binaryOperation(operator: string, left: Value, right: Value): Value {
  for (const value of [left, right]) spendOn(value);
  switch (operator) {
    case "==":
      return equals(left, right);
    case "!=":
      return !equals(left, right);
    case "<":
      return compare(left, right) < 0;
    case ">":
      return compare(left, right) > 0;
    case "<=":
      return compare(left, right) <= 0;
    case ">=":
      return compare(left, right) >= 0;
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
    case "~":
      return joinedText(textOf(left), textOf(right));
    default:
  }
  for (const value of [left, right]) if (value instanceof Undefined) fail(value.problem);
  if (operator === "+") {
    if (typeof left === "string" && typeof right === "string") return joinedText(left, right);
    if (Array.isArray(left) && Array.isArray(right)) {
      checkList(left.length + right.length);
      return [...left, ...right];
    }
    if (left instanceof Tuple && right instanceof Tuple) {
      checkList(left.items.length + right.items.length);
      return new Tuple([...left.items, ...right.items]);
    }
  }
  const [a, b] = [numberOf(left), numberOf(right)];
  if (operator === "*") {
    const repeated = repeat(left, b) ?? repeat(right, a);
    if (repeated !== undefined) return repeated;
  }
  if (a === undefined || b === undefined) {
    if (operator === "%" && typeof left === "string")
      return fail("the operator % on a text is not supported");
    return fail(
      `TypeError: unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`,
    );
  }
  return typeof a === "bigint" && typeof b === "bigint"
    ? checkedInteger(integerOperation(operator, a, b))
    : floatOperation(operator, Number(a), Number(b));
}

function joinedText(left: string, right: string): string {
  checkText(left.length + right.length);
  return left + right;
}

/** Python writes no integer of more than 4,300 digits as text either. */
const maxInteger = 2n ** 16_384n;

function checkedInteger(value: Value): Value {
  if (typeof value === "bigint" && (value > maxInteger || value < -maxInteger)) {
    fail("an integer has more than 16384 bits");
  }
  return value;
}

function integerOperation(operator: string, a: bigint, b: bigint): Value {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "**":
      if (b > 4096n) fail("the exponent is over 4096");
      if (b > 0n && BigInt(a.toString(16).length - 1) * 4n * b > 16_384n) {
        fail("an integer has more than 16384 bits");
      }
      return b < 0n ? Number(a) ** Number(b) : a ** b;
    case "/":
      return floatOperation("/", Number(a), Number(b));
    case "//":
    case "%": {
      if (b === 0n) fail("ZeroDivisionError: integer division or modulo by zero");
      // Python rounds down, and a remainder has the sign of the divisor.
      const rest = ((a % b) + b) % b;
      return operator === "%" ? rest : (a - rest) / b;
    }
    default:
      return fail(`the operator ${operator} is not supported`);
  }
}

function floatOperation(operator: string, a: number, b: number): Value {
  if (b === 0 && ["/", "//", "%"].includes(operator)) fail("ZeroDivisionError: division by zero");
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "**":
      return a ** b;
    case "/":
      return a / b;
    case "//":
      return Math.floor(a / b);
    case "%": {
      const rest = a % b;
      return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
    }
    default:
      return fail(`the operator ${operator} is not supported`);
  }
}

/** Copies of a text or a list that one multiplication may make. */
const maxRepeated = 1e6;

function repeat(value: Value, count: bigint | number | undefined): Value | undefined {
  if (typeof count !== "bigint" || (typeof value !== "string" && !Array.isArray(value))) {
    return undefined;
  }
  const times = Number(count < 0n ? 0n : count);
  if (times * value.length > maxRepeated) fail(`a repetition is over ${maxRepeated} long`);
  if (typeof value === "string") return repeated(value, times);
  checkList(times * value.length);
  return Array.from({ length: times }, () => value).flat();
}

function contains(container: Value, item: Value): boolean {
  if (typeof container === "string") {
    if (typeof item === "string") return container.includes(item);
    if (item instanceof Undefined) fail(item.problem);
    return fail(`TypeError: 'in <string>' requires string as left operand, not ${typeName(item)}`);
  }
  if (isDict(container)) {
    if (Array.isArray(item) || isDict(item))
      fail(`TypeError: unhashable type: '${typeName(item)}'`);
    return container.has(item);
  }
  return iterate(container).some((each) => equals(each, item));
}

/** `+` and `-` before a value. @throws TemplateError */
export function signed(operator: string, value: Value): Value {
  if (value instanceof Undefined) fail(value.problem);
  const number = numberOf(value);
  if (number === undefined) {
    return fail(`TypeError: bad operand type for unary ${operator}: '${typeName(value)}'`);
  }
  return operator === "-" ? -number : number;
}
