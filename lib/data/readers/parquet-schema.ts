import type { parquetSchema } from "hyparquet";

export type SchemaNode = ReturnType<typeof parquetSchema>;
type SchemaElement = SchemaNode["element"];

/** Groups in groups: a list of messages that hold lists of calls has about ten. */
const maxSchemaDepth = 64;
/** Bytes of a value of fixed length: numbers, hashes and vectors. */
const maxFixedBytes = 2 ** 20;

/**
 * Checks that the elements of a schema are a tree of the size that they say, before it is built.
 *
 * @throws Error
 */
export function checkSchema(elements: readonly SchemaElement[]): void {
  /** How many elements are still to come in each open group. */
  const open: number[] = [1];
  for (const element of elements) {
    while (open.at(-1) === 0) open.pop();
    const depth = open.length;
    if (depth === 0) throw new Error("its schema has elements outside of its root");
    open[depth - 1] = (open[depth - 1] ?? 0) - 1;
    if (depth > 1 && typeof element.name !== "string") {
      throw new Error("an element of its schema has no name");
    }
    const numChildren = element.num_children ?? 0;
    if (!Number.isSafeInteger(numChildren) || numChildren < 0 || numChildren >= elements.length) {
      throw new Error(
        `the group ${element.name} of its schema claims ${numChildren} members; the schema has ${elements.length} elements`,
      );
    }
    const fixedBytes = element.type_length ?? 0;
    if (!Number.isSafeInteger(fixedBytes) || fixedBytes < 0 || fixedBytes > maxFixedBytes) {
      throw new Error(
        `column ${element.name} claims values of ${fixedBytes} bytes; at most ${maxFixedBytes} are read`,
      );
    }
    if (numChildren > 0) open.push(numChildren);
    if (open.length > maxSchemaDepth) {
      throw new Error(`its schema is nested deeper than ${maxSchemaDepth} groups`);
    }
  }
  if (open.some((numLeft) => numLeft > 0)) throw new Error("its schema ends early");
}

/** How many columns of values stand below a node. */
export function numLeaves(node: SchemaNode): number {
  return node.children.length === 0
    ? 1
    : node.children.reduce((sum, child) => sum + numLeaves(child), 0);
}

/** What a column's place in the schema says about its values. */
export interface ColumnShape {
  /** Levels are written where these are above zero. */
  readonly maxDefinitionLevel: number;
  readonly maxRepetitionLevel: number;
  /** One value a row. */
  readonly isFlat: boolean;
  readonly typeLength: number;
  /** Arrays that decoding makes for each row, and for each value beside. */
  readonly numArraysPerRow: number;
  readonly numArraysPerValue: number;
}

/**
 * @param path from the root to a column of values
 * @throws Error
 */
export function columnShape(root: SchemaNode, path: readonly string[]): ColumnShape {
  const nodes: SchemaNode[] = [];
  let node = root;
  for (const name of path) {
    const child = node.children.find(({ element }) => element.name === name);
    if (child === undefined) throw new Error("the schema has no such column");
    nodes.push(child);
    node = child;
  }
  if (nodes.length === 0 || node.children.length > 0) throw new Error("it is no column of values");
  const kinds = nodes.map(({ element }) => element.repetition_type);
  const holders = kinds.filter((kind, i) => i < kinds.length - 1 || kind === "REPEATED");
  const firstRepeated = kinds.indexOf("REPEATED");
  const numArrays = (some: typeof kinds): number =>
    some.filter((kind) => kind !== "REQUIRED").length;
  const perRow = firstRepeated < 0 ? holders : holders.slice(0, firstRepeated + 1);
  return {
    maxDefinitionLevel: numArrays(kinds),
    maxRepetitionLevel:
      kinds.filter((kind) => kind === "REPEATED").length +
      (root.element.repetition_type === "REPEATED" ? 1 : 0),
    isFlat: nodes.length === 1 && kinds[0] !== "REPEATED",
    typeLength: node.element.type_length ?? 0,
    numArraysPerRow: numArrays(perRow),
    numArraysPerValue: numArrays(holders.slice(perRow.length)),
  };
}
