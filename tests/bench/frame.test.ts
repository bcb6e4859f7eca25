import assert from "node:assert/strict";
import { test } from "node:test";
import { disagreement, judge, median } from "#bench/frame/compare";
import type { Command, Experiment, Measurement, Row } from "#bench/frame/experiment";
import { measure, parseMeasurement } from "#bench/frame/process";
import { jsonLine, table } from "#bench/frame/report";
import { runExperiment } from "#bench/frame/run-experiment";
import { Workspace } from "#bench/frame/workspace";
import { select } from "#bench/rows/index";

const row: Row = { name: "step", what: "a step", unit: "s", bar: 0.72, direction: "at most" };
const measured = (value: number, check: Record<string, number> = {}): Measurement => ({
  values: { step: value },
  check,
});
const pairs = (...times: [number, number][]) =>
  times.map(([ours, peer]) => ({ ours: measured(ours), peer: measured(peer) }));
/** A process that runs this JavaScript. */
const script = (text: string): Command => ({ file: process.execPath, args: ["-e", text] });
const printing = (measurement: Measurement): Command =>
  script(`console.log(${JSON.stringify(JSON.stringify(measurement))})`);

test("the median of an odd and of an even number of values", () => {
  assert.equal(median([9, 1, 10]), 9);
  assert.equal(median([10, 1, 2, 4]), 3);
  assert.throws(() => median([]), RangeError);
});

test("the ratio is that of the medians, and an outlier does not count", () => {
  const result = judge(row, pairs([7, 10], [100, 10], [6, 10]));
  assert.deepEqual([result.ours, result.peer, result.ratio, result.holds], [7, 10, 0.7, true]);
});

test("a bar holds up to its value, in its direction", () => {
  assert.equal(judge(row, pairs([7.2, 10])).holds, true);
  assert.equal(judge(row, pairs([7.3, 10])).holds, false);
  const rate: Row = { ...row, bar: 1.3, direction: "at least" };
  assert.equal(judge(rate, pairs([13, 10])).holds, true);
  assert.equal(judge(rate, pairs([12.9, 10])).holds, false);
});

test("a row without a peer is judged by its own value", () => {
  const result = judge({ ...row, bar: 0.2, withoutPeer: true }, [
    { ours: measured(0.19), peer: undefined },
  ]);
  assert.deepEqual([result.peer, result.ratio, result.holds], [null, 0.19, true]);
});

test("a value that is missing, zero or not a number is refused", () => {
  for (const value of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => judge(row, pairs([value, 1])), /ours printed/);
    assert.throws(() => judge(row, pairs([1, value])), /the peer printed/);
  }
  assert.throws(() => judge({ ...row, name: "other" }, pairs([1, 1])), /no value for other/);
});

test("numbers that both must compute are compared", () => {
  const pair = (ours: number, peer: number) => ({
    ours: measured(1, { loss: ours }),
    peer: measured(1, { loss: peer }),
  });
  assert.equal(disagreement(pair(10.001, 10), { loss: 1e-3 }), undefined);
  assert.match(disagreement(pair(10.02, 10), { loss: 1e-3 }) ?? "", /loss: ours 10.02/);
  assert.match(disagreement(pair(Number.NaN, 10), { loss: 1e-3 }) ?? "", /NaN/);
  assert.match(disagreement(pair(10, 10), { norm: 1e-3 }) ?? "", /no check "norm"/);
});

test("the measurement is the last line of JSON, whatever is printed around it", () => {
  const text = 'warning\n{"values":{"a":1}}\n{"values":{"a":2},"check":{"loss":3}}\nbye\n';
  assert.deepEqual(parseMeasurement(text), { values: { a: 2 }, check: { loss: 3 } });
  assert.throws(() => parseMeasurement("nothing"), /no measurement/);
  assert.throws(() => parseMeasurement('{"a":1}'), /no values/);
});

test("a process that fails says how", async () => {
  const failing = script('console.error("out of memory"); process.exit(3)');
  await assert.rejects(measure(failing), /ended with 3:\nout of memory/);
  await assert.rejects(measure(script('process.kill(process.pid, "SIGKILL")')), /SIGKILL/);
  await assert.rejects(measure({ file: "no-such-program", args: [] }), /ENOENT/);
});

test("a prefix starts the command", async () => {
  const args = printing(measured(1)).args;
  const command: Command = { file: "-e", args: args.slice(1) };
  assert.deepEqual((await measure(command, [process.execPath])).values, { step: 1 });
});

async function run(experiment: Partial<Experiment>, numPairs = 3) {
  const workspace = new Workspace();
  try {
    return await runExperiment(
      { name: "x", rows: [row], tolerances: {}, ours: () => printing(measured(1)), ...experiment },
      workspace,
      { numPairs },
    );
  } finally {
    workspace.remove();
  }
}

test("ours and the peer take turns", async () => {
  const turns: string[] = [];
  const turn = (side: string, value: number) => (_: Workspace, pair: number) => {
    turns.push(`${side}${pair}`);
    return printing(measured(value + pair));
  };
  const [result] = await run({ ours: turn("a", 1), peer: turn("b", 10) });
  assert.deepEqual(turns, ["a0", "b0", "a1", "b1", "a2", "b2"]);
  assert.deepEqual(result?.samples, [
    [1, 10],
    [2, 11],
    [3, 12],
  ]);
  assert.equal(result?.holds, true);
});

test("a wrong loss fails every row at once, however fast it was", async () => {
  let numRuns = 0;
  const [result] = await run({
    tolerances: { loss: 1e-3 },
    ours: () => {
      numRuns++;
      return printing(measured(0.001, { loss: 9 }));
    },
    peer: () => printing(measured(1, { loss: 10 })),
  });
  assert.equal(numRuns, 1);
  assert.equal(result?.holds, false);
  assert.equal(result?.ratio, null);
  assert.match(result?.problem ?? "", /loss/);
});

test("a failing peer fails the row, with its reason in both reports", async () => {
  const [result] = await run({ peer: () => script("process.exit(1)") });
  assert.ok(result !== undefined);
  assert.match(table([result]), /\*\*no\*\*[\s\S]*ended with 1/);
  const line = JSON.parse(jsonLine(result)) as Record<string, unknown>;
  assert.equal(line["holds"], false);
  assert.equal(line["ours"], null);
  assert.match(String(line["problem"]), /ended with 1/);
});

test("a line of JSON holds what a program needs", () => {
  assert.equal(
    jsonLine(judge(row, pairs([7, 10]))),
    '{"name":"step","ours":7,"peer":10,"ratio":0.7,"bar":0.72,"holds":true}',
  );
});

test("rows are chosen by their name or their experiment's", () => {
  const all = [
    { name: "a", rows: [row, { ...row, name: "other" }] },
    { name: "b", rows: [{ ...row, name: "third" }] },
  ] as unknown as Experiment[];
  const names = (...chosen: string[]) =>
    select(all, chosen).chosen.map(({ rows }) => rows.map(({ name }) => name));
  assert.deepEqual(names(), [["step", "other"], ["third"]]);
  assert.deepEqual(names("a"), [["step", "other"]]);
  assert.deepEqual(names("other", "b"), [["other"], ["third"]]);
  assert.deepEqual(select(all, ["a", "c"]).unknown, ["c"]);
});
