import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { isLockstepError } from "#lib/core/errors/index";
import { GraphBuilder } from "#lib/graph/builder";
import { Session, type Program, type TensorData } from "#lib/graph/session";
import * as op from "#lib/graph/tf-ops";

/** y = x · x and its elements' sign, of four numbers. */
function squares(): { graph: GraphBuilder; program: Program } {
  const graph = new GraphBuilder();
  const x = op.placeholder(graph, "x", "float32", [4]);
  const program = {
    name: "squares",
    feeds: { x },
    fetches: {
      y: op.mul(x, x),
      whole: op.cast(x, "int32"),
      positive: op.greater(x, op.scalar(graph, 0)),
    },
  };
  return { graph, program };
}

const x = Float32Array.of(-1, 2, 3, -4);

test("fetches go into the given arrays, shared or not, at any offset", () => {
  const { graph, program } = squares();
  const session = new Session(graph);
  const shared = new SharedArrayBuffer(28);
  const into = {
    // Aligned to the element only.
    y: new Float32Array(shared, 4, 4),
    whole: new Int32Array(new ArrayBuffer(24), 8, 4),
  };
  const results = session.run(program, { x }, into);
  assert.equal(results["y"], into.y);
  assert.equal(results["whole"], into.whole);
  assert.deepEqual([...new Float32Array(shared)], [0, 1, 4, 9, 16, 0, 0]);
  assert.deepEqual([...new Int32Array(into.whole.buffer)], [0, 0, -1, 2, 3, -4]);
  assert.deepEqual([...(results["positive"] as Uint8Array)], [0, 1, 1, 0]);
  const positive = new Uint8Array(new SharedArrayBuffer(9), 3, 4);
  session.run(program, { x }, { positive });
  assert.deepEqual([...new Uint8Array(positive.buffer)], [0, 0, 0, 0, 1, 1, 0, 0, 0]);
  session.close();
});

test("an array that does not fit a fetch is refused before anything is written", () => {
  const { graph, program } = squares();
  const session = new Session(graph);
  const refused = (into: Record<string, TensorData>, details: Record<string, string>): void => {
    assert.throws(
      () => session.run(program, { x }, into),
      (error) => {
        assert.ok(isLockstepError(error));
        assert.equal(error.code, "E_SESSION_FETCH");
        assert.deepEqual(error.details, { program: "squares", ...details });
        return true;
      },
    );
  };
  const expected = "Float32Array of 4";
  refused({ y: new Float32Array(3) }, { fetch: "y", expected, got: "Float32Array of 3" });
  refused({ y: new Float32Array(5) }, { fetch: "y", expected, got: "Float32Array of 5" });
  refused({ y: new Int32Array(4) }, { fetch: "y", expected, got: "Int32Array of 4" });
  refused(
    { z: new Float32Array(4) },
    { fetch: "z", expected: "no array, for it is no fetch", got: "Float32Array of 4" },
  );
  const y = new Float32Array(4);
  refused(
    { y, whole: new Int32Array(1) },
    {
      fetch: "whole",
      expected: "Int32Array of 4",
      got: "Int32Array of 1",
    },
  );
  assert.deepEqual([...y], [0, 0, 0, 0]);
  session.close();
});

test("the addon itself refuses an array of another size or type", async () => {
  const { loadBinding } = await import("#lib/graph/binding");
  const binding = loadBinding();
  const id = binding.createTensor([4], 1, x);
  assert.throws(
    () => binding.readTensor(id, new Float32Array(3)),
    /16 bytes of type 1 .* 3 elements/,
  );
  assert.throws(() => binding.readTensor(id, new Int32Array(4)), /type 1/);
  assert.throws(() => binding.readTensor(id, new Uint8Array(16)), /type 1/);
  assert.throws(() => binding.readTensor(id, [0, 0, 0, 0] as never), /typed array/);
  const copy = new Float32Array(4);
  binding.readTensor(id, copy);
  assert.deepEqual(copy, x);
  binding.deleteTensor(id);
  assert.throws(() => binding.readTensor(id, copy), /no tensor has the id/);
});

test("threads with a session each write into one shared buffer", async () => {
  const shared = new SharedArrayBuffer(64);
  const script = `
    import { workerData } from "node:worker_threads";
    const { shared, index } = workerData;
    const { GraphBuilder } = await import(workerData.builder);
    const { Session } = await import(workerData.session);
    const op = await import(workerData.ops);
    const graph = new GraphBuilder();
    const x = op.placeholder(graph, "x", "float32", [4]);
    const program = { name: "double", feeds: { x }, fetches: { y: op.add(x, x) } };
    const session = new Session(graph);
    const y = new Float32Array(shared, index * 16, 4);
    for (let i = 0; i < 50; i++) session.run(program, { x: Float32Array.of(index, i, 0, 1) }, { y });
    session.close();`;
  const moduleUrls = {
    builder: import.meta.resolve("#lib/graph/builder"),
    session: import.meta.resolve("#lib/graph/session"),
    ops: import.meta.resolve("#lib/graph/tf-ops"),
  };
  await Promise.all(
    [0, 1, 2, 3].map(
      (index) =>
        new Promise<void>((resolve, reject) => {
          const url = new URL(`data:text/javascript,${encodeURIComponent(script)}`);
          const worker = new Worker(url, { workerData: { ...moduleUrls, shared, index } });
          worker.on("error", reject);
          worker.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`exit ${code}`))));
        }),
    ),
  );
  assert.deepEqual(
    [...new Float32Array(shared)],
    [0, 1, 2, 3].flatMap((index) => [2 * index, 98, 0, 2]),
  );
});
