import { parse, tokenize } from "@huggingface/jinja";

/** A node of the tree that `@huggingface/jinja` parses a template into; it exports no types of them. */
export type Node =
  | { readonly type: "Program"; readonly body: readonly Node[] }
  | If
  | For
  | { readonly type: "Break" | "Continue" }
  | SetStatement
  | Macro
  | { readonly type: "Comment"; readonly value: string }
  | MemberExpression
  | CallExpression
  | Identifier
  | { readonly type: "IntegerLiteral" | "FloatLiteral"; readonly value: number }
  | { readonly type: "StringLiteral"; readonly value: string }
  | { readonly type: "ArrayLiteral" | "TupleLiteral"; readonly value: readonly Node[] }
  | { readonly type: "ObjectLiteral"; readonly value: ReadonlyMap<Node, Node> }
  | BinaryExpression
  | FilterExpression
  | {
      readonly type: "FilterStatement";
      readonly filter: FilterNode;
      readonly body: readonly Node[];
    }
  | SelectExpression
  | TestExpression
  | {
      readonly type: "UnaryExpression";
      readonly operator: { readonly value: string };
      readonly argument: Node;
    }
  | SliceExpression
  | KeywordArgument
  | { readonly type: "SpreadExpression" | "KeywordSpreadExpression"; readonly argument: Node }
  | CallStatement
  | {
      readonly type: "Ternary";
      readonly condition: Node;
      readonly trueExpr: Node;
      readonly falseExpr: Node;
    };

interface If {
  readonly type: "If";
  readonly test: Node;
  readonly body: readonly Node[];
  readonly alternate: readonly Node[];
}
export interface For {
  readonly type: "For";
  readonly loopvar: Node;
  readonly iterable: Node;
  readonly body: readonly Node[];
  readonly defaultBlock: readonly Node[];
}
export interface SetStatement {
  readonly type: "Set";
  readonly assignee: Node;
  readonly value: Node | null;
  readonly body: readonly Node[];
}
interface Macro {
  readonly type: "Macro";
  readonly name: Identifier;
  readonly args: readonly Parameter[];
  readonly body: readonly Node[];
}
export interface CallStatement {
  readonly type: "CallStatement";
  readonly call: CallExpression;
  readonly callerArgs: readonly Parameter[] | null;
  readonly body: readonly Node[];
}
interface MemberExpression {
  readonly type: "MemberExpression";
  readonly object: Node;
  readonly property: Node;
  readonly computed: boolean;
}
interface CallExpression {
  readonly type: "CallExpression";
  readonly callee: Node;
  readonly args: readonly Node[];
}
interface Identifier {
  readonly type: "Identifier";
  readonly value: string;
}
interface BinaryExpression {
  readonly type: "BinaryExpression";
  readonly operator: { readonly value: string };
  readonly left: Node;
  readonly right: Node;
}
interface FilterExpression {
  readonly type: "FilterExpression";
  readonly operand: Node;
  readonly filter: FilterNode;
}
interface SelectExpression {
  readonly type: "SelectExpression";
  readonly lhs: Node;
  readonly test: Node;
}
interface TestExpression {
  readonly type: "TestExpression";
  readonly operand: Node;
  readonly negate: boolean;
  readonly test: Identifier;
}
interface SliceExpression {
  readonly type: "SliceExpression";
  readonly start: Node | undefined;
  readonly stop: Node | undefined;
  readonly step: Node | undefined;
}
interface KeywordArgument {
  readonly type: "KeywordArgumentExpression";
  readonly key: Identifier;
  readonly value: Node;
}
export type Parameter = Identifier | KeywordArgument;
/** A filter's name, with arguments or without. */
export type FilterNode = Identifier | CallExpression;

/** Parses a template with the whitespace rules of transformers. @throws SyntaxError, Error */
export function parseTemplate(source: string): Node {
  // Jinja reads every line end as a line feed.
  const text = source.replace(/\r\n?/g, "\n");
  const tree: unknown = parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true }));
  return tree as Node;
}
