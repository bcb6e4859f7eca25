import type { CallStatement, FilterNode, For, Node, Parameter, SetStatement } from "./ast.js";
import { checkText, spend, spendOn, startRendering } from "./budget.js";
import { attributeOf, itemOf, sliceOf } from "./attributes.js";
import { filterNamed } from "./filters.js";
import { binaryOperation, signed } from "./operators.js";
import { textOf } from "./text.js";
import { testNamed } from "./tests.js";
import {
  Callable,
  equals,
  fail,
  isDict,
  isTrue,
  iterate,
  type Keywords,
  Namespace,
  orElse,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** Names as Jinja finds them: a loop's iteration, a macro or a call has its own, over those around it. */
class Scope {
  readonly #names = new Map<string, Value>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  get(name: string): Value | undefined {
    const value = this.#names.get(name);
    return value === undefined ? this.#outer?.get(name) : value;
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

/** A loop's `break` and `continue`. */
class LoopControl extends Error {
  readonly type: "Break" | "Continue";
  /** What the iteration wrote before. */
  text: string;

  constructor(type: "Break" | "Continue") {
    super(`${type} outside of a loop`);
    this.type = type;
    this.text = "";
  }
}

/** The text of a template's tree with Python's values. @throws TemplateError */
export function renderTree(tree: Node, variables: ReadonlyMap<string, Value>): string {
  startRendering();
  const scope = new Scope();
  for (const [name, value] of variables) scope.set(name, value);
  if (tree.type !== "Program") return fail("the tree is no template");
  return block(tree.body, new Scope(scope));
}

function block(nodes: readonly Node[], scope: Scope): string {
  let text = "";
  for (const node of nodes) {
    try {
      const part = statement(node, scope);
      checkText(text.length + part.length);
      text += part;
    } catch (error) {
      if (error instanceof LoopControl) error.text = text + error.text;
      throw error;
    }
  }
  return text;
}

function statement(node: Node, scope: Scope): string {
  spend(1);
  switch (node.type) {
    case "Comment":
      return "";
    case "If":
      return block(isTrue(evaluate(node.test, scope)) ? node.body : node.alternate, scope);
    case "For":
      return loop(node, scope);
    case "Set":
      assign(node, scope);
      return "";
    case "Macro":
      scope.set(node.name.value, macro(node.name.value, node.args, node.body, scope));
      return "";
    case "CallStatement":
      return callBlock(node, scope);
    case "FilterStatement":
      return textOf(applyFilter(block(node.body, new Scope(scope)), node.filter, scope));
    case "Break":
    case "Continue":
      throw new LoopControl(node.type);
    default:
      return textOf(evaluate(node, scope));
  }
}

/** A scope and what `loop` is. */
const operationsOfIteration = 4;

function loop(node: For, scope: Scope): string {
  const { iterable } = node;
  const test = iterable.type === "SelectExpression" ? iterable.test : undefined;
  const source = evaluate(iterable.type === "SelectExpression" ? iterable.lhs : iterable, scope);
  spendOn(source);
  const items = iterate(source).filter((item) => {
    if (test === undefined) return true;
    const inner = new Scope(scope);
    bind(node.loopvar, item, inner);
    return isTrue(evaluate(test, inner));
  });
  if (items.length === 0) return block(node.defaultBlock, new Scope(scope));
  let text = "";
  let changing: readonly Value[] | undefined;
  const isChanged = (values: readonly Value[]): boolean => {
    const before = changing;
    changing = values;
    return before === undefined || !equals(new Tuple(before), new Tuple(values));
  };
  for (const [i, item] of items.entries()) {
    spend(operationsOfIteration);
    const inner = new Scope(scope);
    const noItem = (which: string): Undefined => new Undefined(`there is no ${which} item`);
    const attributes: [string, Value][] = [
      ["index", BigInt(i + 1)],
      ["index0", BigInt(i)],
      ["revindex", BigInt(items.length - i)],
      ["revindex0", BigInt(items.length - i - 1)],
      ["first", i === 0],
      ["last", i === items.length - 1],
      ["length", BigInt(items.length)],
      ["depth", 1n],
      ["depth0", 0n],
      ["previtem", orElse(items[i - 1], noItem("previous"))],
      ["nextitem", orElse(items[i + 1], noItem("next"))],
      ["cycle", new Callable((args) => args[i % args.length] ?? null)],
      ["changed", new Callable((args) => isChanged(args))],
    ];
    inner.set("loop", new Namespace(new Map(attributes), false));
    bind(node.loopvar, item, inner);
    try {
      const part = block(node.body, inner);
      checkText(text.length + part.length);
      text += part;
    } catch (error) {
      if (!(error instanceof LoopControl)) throw error;
      text += error.text;
      if (error.type === "Break") break;
    }
  }
  return text;
}

/** Gives a name its value, or several names the items of one. */
function bind(target: Node, value: Value, scope: Scope): void {
  if (target.type === "Identifier") {
    scope.set(target.value, value);
    return;
  }
  if (target.type === "MemberExpression") {
    const object = evaluate(target.object, scope);
    if (
      !(object instanceof Namespace) ||
      !object.isWritable ||
      target.property.type !== "Identifier"
    ) {
      fail("cannot assign attribute on non-namespace object");
    }
    const name = target.property.value;
    if (name.startsWith("_")) fail(`SecurityError: '${name}' cannot be set`);
    object.attributes.set(name, value);
    return;
  }
  if (target.type !== "TupleLiteral") return fail(`cannot assign to ${target.type}`);
  if (value instanceof Undefined) fail(value.problem);
  const items = iterate(value);
  if (items.length !== target.value.length) {
    fail(`ValueError: ${items.length} values to unpack, expected ${target.value.length}`);
  }
  for (const [i, part] of target.value.entries()) bind(part, items[i] ?? null, scope);
}

function assign({ assignee, value, body }: SetStatement, scope: Scope): void {
  bind(assignee, value === null ? block(body, new Scope(scope)) : evaluate(value, scope), scope);
}

function macro(
  name: string,
  parameters: readonly Parameter[],
  body: readonly Node[],
  scope: Scope,
): Callable {
  return new Callable((args, keywords) => {
    const inner = new Scope(scope);
    const rest = new Map(keywords);
    for (const [i, parameter] of parameters.entries()) {
      const isPlain = parameter.type === "Identifier";
      const key = isPlain ? parameter.value : parameter.key.value;
      const given = i < args.length ? args[i] : rest.get(key);
      if (i < args.length && rest.has(key)) {
        fail(`TypeError: macro '${name}' got multiple values for argument '${key}'`);
      }
      rest.delete(key);
      if (given !== undefined) inner.set(key, given);
      else if (isPlain) inner.set(key, new Undefined(`parameter '${key}' was not provided`));
      else inner.set(key, evaluate(parameter.value, inner));
    }
    const caller = rest.get("caller");
    if (caller !== undefined) inner.set("caller", caller);
    rest.delete("caller");
    const usesRest = usesName(body, "kwargs");
    const usesMore = usesName(body, "varargs");
    const [unknown] = rest.keys();
    if (unknown !== undefined && !usesRest) {
      fail(`TypeError: macro '${name}' takes no keyword argument '${unknown}'`);
    }
    if (args.length > parameters.length && !usesMore) {
      fail(`TypeError: macro '${name}' takes not more than ${parameters.length} argument(s)`);
    }
    if (usesRest) inner.set("kwargs", new Map<Value, Value>(rest));
    if (usesMore) inner.set("varargs", new Tuple(args.slice(parameters.length)));
    return block(body, inner);
  });
}

/** Whether a tree holds an identifier. */
function usesName(tree: unknown, name: string): boolean {
  if (typeof tree !== "object" || tree === null) return false;
  if (tree instanceof Map) return [...tree].some((entry) => usesName(entry, name));
  const node = tree as Partial<Node> & { value?: unknown };
  if (node.type === "Identifier" && node.value === name) return true;
  return Object.values(tree).some((part) => usesName(part, name));
}

function callBlock({ call, callerArgs, body }: CallStatement, scope: Scope): string {
  const { args, keywords } = argumentsOf(call.args, scope);
  const caller = macro("caller", callerArgs ?? [], body, scope);
  return textOf(
    invoke(evaluate(call.callee, scope), args, new Map([...keywords, ["caller", caller]])),
  );
}

function invoke(callee: Value, args: readonly Value[], keywords: Keywords): Value {
  if (callee instanceof Undefined) fail(callee.problem);
  if (!(callee instanceof Callable))
    fail(`TypeError: '${typeName(callee)}' object is not callable`);
  return callee.call(args, keywords);
}

function argumentsOf(
  nodes: readonly Node[],
  scope: Scope,
): { args: readonly Value[]; keywords: Map<string, Value> } {
  const args: Value[] = [];
  const keywords = new Map<string, Value>();
  for (const node of nodes) {
    if (node.type === "KeywordArgumentExpression") {
      keywords.set(node.key.value, evaluate(node.value, scope));
    } else if (node.type === "SpreadExpression")
      args.push(...iterate(evaluate(node.argument, scope)));
    else if (node.type === "KeywordSpreadExpression") {
      const given = evaluate(node.argument, scope);
      if (!isDict(given)) fail("TypeError: argument after ** must be a mapping");
      for (const [key, value] of given) keywords.set(textOf(key), value);
    } else args.push(evaluate(node, scope));
  }
  return { args, keywords };
}

function applyFilter(value: Value, node: FilterNode, scope: Scope): Value {
  if (node.type === "Identifier") return filterNamed(node.value)(value, [], new Map());
  if (node.callee.type !== "Identifier") return fail("a filter has to be a name");
  const { args, keywords } = argumentsOf(node.args, scope);
  return filterNamed(node.callee.value)(value, args, keywords);
}

function evaluate(node: Node, scope: Scope): Value {
  spend(1);
  switch (node.type) {
    case "StringLiteral":
      return node.value;
    case "IntegerLiteral":
      return BigInt(node.value);
    case "FloatLiteral":
      return node.value;
    case "ArrayLiteral":
      return node.value.map((item) => evaluate(item, scope));
    case "TupleLiteral":
      return new Tuple(node.value.map((item) => evaluate(item, scope)));
    case "ObjectLiteral":
      return new Map([...node.value].map(([k, v]) => [evaluate(k, scope), evaluate(v, scope)]));
    case "Identifier":
      return nameOf(node.value, scope);
    case "MemberExpression": {
      const object = evaluate(node.object, scope);
      if (node.property.type === "SliceExpression") {
        const { start, stop, step } = node.property;
        return sliceOf(
          object,
          [start, stop, step].map((bound) => bound && evaluate(bound, scope)),
        );
      }
      if (!node.computed && node.property.type === "Identifier") {
        return attributeOf(object, node.property.value);
      }
      return itemOf(object, evaluate(node.property, scope));
    }
    case "CallExpression": {
      const callee = evaluate(node.callee, scope);
      const { args, keywords } = argumentsOf(node.args, scope);
      return invoke(callee, args, keywords);
    }
    case "UnaryExpression": {
      const value = evaluate(node.argument, scope);
      return node.operator.value === "not" ? !isTrue(value) : signed(node.operator.value, value);
    }
    case "BinaryExpression": {
      const left = evaluate(node.left, scope);
      if (node.operator.value === "and") return isTrue(left) ? evaluate(node.right, scope) : left;
      if (node.operator.value === "or") return isTrue(left) ? left : evaluate(node.right, scope);
      return binaryOperation(node.operator.value, left, evaluate(node.right, scope));
    }
    case "FilterExpression":
      return applyFilter(evaluate(node.operand, scope), node.filter, scope);
    case "TestExpression":
      return testNamed(node.test.value)(evaluate(node.operand, scope), []) !== node.negate;
    case "SelectExpression":
      return isTrue(evaluate(node.test, scope))
        ? evaluate(node.lhs, scope)
        : new Undefined(
            "the inline if-expression evaluated to false and no else section was defined.",
          );
    case "Ternary":
      return evaluate(
        isTrue(evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr,
        scope,
      );
    default:
      return fail(`${node.type} cannot stand in an expression`);
  }
}

function nameOf(name: string, scope: Scope): Value {
  const found = scope.get(name);
  if (found !== undefined) return found;
  switch (name) {
    case "true":
    case "True":
      return true;
    case "false":
    case "False":
      return false;
    case "none":
    case "None":
      return null;
    default:
      return new Undefined(`'${name}' is undefined`);
  }
}
