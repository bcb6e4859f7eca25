/** Rows that are written in a variable's own memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { GraphBuilder } from "#lib/graph/builder";
import { Session } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";
import { assign, deepCopy, readVariable, updateInPlace, variable } from "#lib/graph/variables";

test("rows written in place stay for the next run, and other variables are as they were", () => {
  const graph = new GraphBuilder();
  const variables = ["a", "b"].map((name) => variable(graph, name, "float32", [4, 2]));
  const [a, b] = variables as [ReturnType<typeof variable>, ReturnType<typeof variable>];
  // One value for both, as equal nodes are made once.
  const value = op.fill(op.scalar(graph, 1), [4, 2]);
  const init = op.identity(op.intScalar(graph, 1), {
    name: "init",
    controlInputs: variables.map((v) => assign(v, deepCopy(value))),
  });
  const indices = op.placeholder(graph, "indices", "int32", [2]);
  const rows = op.placeholder(graph, "rows", "float32", [2, 2]);
  const written = op.identity(updateInPlace(a, indices, rows), { name: "written" });
  const read = { name: "read", feeds: {}, fetches: { a: readVariable(a), b: readVariable(b) } };
  const session = new Session(graph);
  try {
    session.run({ name: "init", feeds: {}, fetches: { init } }, {});
    const update = { name: "update", feeds: { indices, rows }, fetches: { written } };
    const write = (at: readonly number[], values: readonly number[]) => {
      const data = { indices: Int32Array.from(at), rows: Float32Array.from(values) };
      return [...(session.run(update, data)["written"] ?? [])];
    };
    assert.deepEqual(write([3, 0], [2, 3, 4, 5]), [4, 5, 1, 1, 1, 1, 2, 3]);
    assert.deepEqual(write([1, 1], [6, 7, 8, 9]), [4, 5, 8, 9, 1, 1, 2, 3], "the last one stays");
    const values = session.run(read, {});
    assert.deepEqual([...(values["a"] ?? [])], [4, 5, 8, 9, 1, 1, 2, 3]);
    assert.deepEqual(
      [...(values["b"] ?? [])],
      Array.from({ length: 8 }, () => 1),
    );
  } finally {
    session.close();
  }
});
