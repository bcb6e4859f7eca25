import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { type RunContext, type RunResult, startRun } from "#run/run-handle";

const result = (step: number): RunResult => ({
  outcome: "finished",
  ...{ step, directory: "out", mastersSha256: "0", seconds: 1 },
});

/** Notes its steps until it is stopped, or has made all of them. */
const steps =
  (numSteps: number) =>
  async ({ bus, stop }: RunContext): Promise<RunResult> => {
    for (let step = 1; step <= numSteps; step++) {
      bus.publish({ type: "note", text: `${step}` });
      await setImmediate();
      if (stop.aborted) return { ...result(step), outcome: "interrupted" };
    }
    return result(numSteps);
  };

const textOf = (event: LockstepEvent): string => (event.type === "note" ? event.text : event.type);

async function textsOf(events: AsyncIterable<LockstepEvent>): Promise<string[]> {
  const texts: string[] = [];
  for await (const event of events) texts.push(textOf(event));
  return texts;
}

test("a loop sees every event, also where it is slower than the run, and ends with it", async () => {
  const run = startRun({}, steps(3));
  const slow: string[] = [];
  const loop = (async () => {
    for await (const event of run) {
      for (let i = 0; i < 5; i++) await setImmediate();
      slow.push(textOf(event));
    }
  })();
  assert.deepEqual(await textsOf(run), ["1", "2", "3"]);
  await loop;
  assert.deepEqual(slow, ["1", "2", "3"]);
  assert.deepEqual(await run.outcome, result(3));
  assert.deepEqual(await textsOf(run), []);
});

test("leaving the loop stops the run, and comes after its end", async () => {
  let isClosed = false;
  const run = startRun({}, steps(1000), async () => {
    isClosed = true;
  });
  for await (const event of run) if (textOf(event) === "2") break;
  assert.ok(isClosed);
  const { outcome, step } = await run.outcome;
  assert.equal(outcome, "interrupted");
  assert.ok(step < 5, `${step}`);
});

test("a signal stops the run, one that is aborted before it begins too", async () => {
  const stop = new AbortController();
  const run = startRun({ signal: stop.signal }, steps(1000));
  run.subscribe((event) => {
    if (textOf(event) === "3") stop.abort();
  });
  assert.deepEqual(await run.outcome, { ...result(3), outcome: "interrupted" });
  const again = startRun({ signal: stop.signal }, steps(1000));
  assert.deepEqual(await again.outcome, { ...result(1), outcome: "interrupted" });
});

test("an error is an event, ends the loop and rejects the outcome, and the run is closed", async () => {
  let isClosed = false;
  const run = startRun(
    {},
    async () => {
      throw new RangeError("no more");
    },
    async () => {
      isClosed = true;
    },
  );
  const seen: LockstepEvent[] = [];
  await assert.rejects(async () => {
    for await (const event of run) seen.push(event);
  }, /no more/);
  assert.deepEqual(seen, [{ type: "run.failed", code: "E_UNEXPECTED", message: "no more" }]);
  assert.ok(isClosed);
  await assert.rejects(run.outcome, /no more/);
});

test("a listener that throws stops nothing, and is a warning of the process", async () => {
  const warnings: Error[] = [];
  const listen = (warning: Error): void => void warnings.push(warning);
  process.on("warning", listen);
  const run = startRun({}, steps(1));
  run.subscribe(() => {
    throw new RangeError("of the program");
  });
  assert.deepEqual(await run.outcome, result(1));
  await setImmediate();
  process.off("warning", listen);
  assert.deepEqual(
    warnings.map(({ name }) => name),
    ["ListenerWarning"],
  );
});
