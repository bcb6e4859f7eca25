import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fence } from "#coordinator/reducer/fence";
import { ShardReducer } from "#coordinator/reducer/shard-reducer";
import { PushAssembly } from "#coordinator/reducer/shard-state";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { finishFisher } from "#lib/optim/ewc";
import {
  type ChosenOptimizer,
  type PenalisedShards,
  StepUpdate,
  type UpdatedShards,
} from "#lib/optim/index";
import { adamW, smallLayout, updateOf, wireGradient } from "./gradients.js";

const numGroups = 2;
const layout = buildParameterLayout(
  [
    { name: "matrix", shape: [64, 32] },
    { name: "vector", shape: [100] },
  ],
  "bfloat16",
);
const adafactor: ChosenOptimizer = {
  name: "adafactor",
  settings: {
    ...{ scaleParameter: true, clipThreshold: 1, decayRate: -0.8, squareEpsilon: 1e-30 },
    ...{ scaleEpsilon: 1e-3, beta1: 0.9, weightDecay: 0 },
  },
};

interface Case {
  readonly optimizer: ChosenOptimizer;
  readonly numRounds: number;
  /** Steps whose gradient is not finite. */
  readonly skipped: ReadonlySet<number>;
}

const cases: Readonly<Record<string, Case>> = {
  adamw: { optimizer: adamW, numRounds: 0, skipped: new Set([1]) },
  adafactor: { optimizer: adafactor, numRounds: 0, skipped: new Set() },
  ewc: { optimizer: { ...adamW, ewcLambda: 0.5 }, numRounds: 2, skipped: new Set([2]) },
};
const totalSteps = 4;

/** Ends the coordinator's life. */
class Died extends Error {}

/** What becomes of each call in turn: how often it is carried out, and whether its caller dies after it. */
interface Fate {
  readonly times: number;
  readonly dies: boolean;
}

const undisturbed: Iterator<Fate> = { next: () => ({ value: { times: 1, dies: false } }) };

function push(reducer: ShardReducer, step: number, group: number, bytes: Uint8Array): void {
  const chunk = { step, group, lease: group, offset: 0, checksum: 0, payload: bytes };
  const begun = reducer.state.begin(chunk);
  if (begun instanceof PushAssembly && begun.accept(chunk) === undefined) begun.finish();
}

/** What a run's coordinator keeps of it: all that its next life knows. */
interface Journal {
  round: number;
  isMeasured: boolean;
  step: number;
  /** Whether the groups of the step are agreed on. */
  isAgreed: boolean;
}

async function runOf(of: Case, fates: Iterator<Fate>) {
  const reducer = await ShardReducer.create({
    ...{ shardIndex: 0, layout, range: { start: 0, end: layout.numElements } },
    ...{ optimizer: of.optimizer, gradientGroups: numGroups },
  });
  reducer.arithmetic.masters.fill(0.5);
  let numDeaths = 0;
  const call = async <T>(carryOut: () => T): Promise<T> => {
    const { times, dies } = fates.next().value as Fate;
    const answers = Array.from({ length: times }, () => structuredClone(carryOut()));
    for (const answer of answers) assert.deepEqual(answer, answers[0], "the first answer again");
    if (dies) throw new Died();
    return answers[0] as T;
  };
  const shards: UpdatedShards & Required<PenalisedShards> = {
    reduce: (step) => call(() => reducer.reduce(step)),
    penalise: (step, factor) => call(() => reducer.penalise(step, factor)),
    measure: (step, measurement) => call(() => reducer.measure(step, measurement)),
    apply: (step, update) => call(() => reducer.apply(step, update)),
    discard: (step) => call(() => reducer.discard(step)),
  };
  const gradient = (step: number, group: number): Uint8Array =>
    of.skipped.has(step) && group === 1
      ? new Uint8Array(reducer.arithmetic.wireBytes).fill(0xff)
      : wireGradient(layout, step * 10 + group);
  const gather = async (journal: Journal, step: number): Promise<void> => {
    await call(() => void reducer.openStep(step));
    if (journal.isAgreed) return;
    if (reducer.status.stage !== "open") throw new Error("a step whose groups nobody agreed on");
    // Groups of a life before this one are leased again.
    await call(() => reducer.restartStep(step));
    for (let group = 0; group < numGroups; group++) {
      await call(() => push(reducer, step, group, gradient(step, group)));
    }
    journal.isAgreed = true;
  };
  const journal: Journal = { round: 0, isMeasured: of.numRounds === 0, step: 0, isAgreed: false };
  const settings = {
    optimizer: of.optimizer,
    learningRateAt: () => 1e-2,
    maxGradNorm: 1,
  };
  let resumed: { numUpdates: number; states: Record<string, Float32Array> } = {
    numUpdates: 0,
    states: {},
  };
  const live = async (): Promise<void> => {
    await call(() => reducer.publishInitial(resumed.numUpdates));
    while (!journal.isMeasured) {
      if (journal.round < of.numRounds) {
        await gather(journal, journal.round);
        await call(() => reducer.reduce(journal.round));
        await call(() => reducer.keepSquares(journal.round, journal.round === 0));
        journal.round++;
        journal.isAgreed = false;
        continue;
      }
      const measured = {
        fisherSums: () => call(() => reducer.fisherSums()),
        finishFisher: (scale: number) => call(() => reducer.finishFisher(scale)),
      };
      await finishFisher(measured, layout, { numRows: 3, normalises: true });
      journal.isMeasured = true;
    }
    while (journal.step < totalSteps) {
      const updates = new StepUpdate(layout, settings, resumed);
      for (const [name, values] of Object.entries(resumed.states)) {
        updates.tensorStates[name]?.set(values);
      }
      await gather(journal, journal.step);
      await updates.run(shards, { step: journal.step, loss: 1 });
      resumed = {
        numUpdates: updates.numUpdates,
        states: structuredClone(updates.tensorStates as Record<string, Float32Array>),
      };
      journal.step++;
      journal.isAgreed = false;
    }
  };
  for (;;) {
    try {
      await live();
      break;
    } catch (error) {
      if (!(error instanceof Died)) throw error;
      numDeaths++;
    }
  }
  const { masters, states } = reducer.arithmetic;
  const status = { ...reducer.status, numAppliesRepeated: 0 };
  const published = Buffer.from(reducer.published.get(resumed.numUpdates).bytes);
  return {
    masters: masters.slice(),
    states: structuredClone(states),
    status,
    published,
    numDeaths,
  };
}

for (const [name, of] of Object.entries(cases)) {
  test(`${name}: repeated calls and coordinators that die leave masters, versions and counts as they are`, async () => {
    const { numDeaths: none, ...expected } = await runOf(of, undisturbed);
    assert.equal(none, 0);
    assert.equal(expected.status.numApplied, totalSteps - of.skipped.size);
    let numDeaths = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.infiniteStream(
          fc.record({
            times: fc.integer({ min: 1, max: 3 }),
            dies: fc.nat(7).map((n) => n === 0),
          }),
        ),
        async (fates) => {
          const { numDeaths: died, ...actual } = await runOf(of, fates[Symbol.iterator]());
          numDeaths += died;
          assert.deepEqual(actual, expected);
        },
      ),
      { numRuns: 30 },
    );
    assert.ok(numDeaths > 30, `only ${numDeaths} coordinators died`);
  });
}

test("an answer is for its own question, and a step that ended one way does not end another", async () => {
  const small = smallLayout(1, "bfloat16");
  const reducer = await ShardReducer.create({
    ...{ shardIndex: 0, layout: small, range: { start: 0, end: small.numElements } },
    ...{ optimizer: adamW, gradientGroups: 1 },
  });
  const misuse = { code: "E_SHARD_STATE" };
  assert.deepEqual(reducer.status.isLoaded, false);
  reducer.publishInitial(0);
  reducer.openStep(0);
  assert.equal(reducer.openStep(0), false);
  push(reducer, 0, 0, wireGradient(small, 1));
  reducer.reduce(0);
  reducer.apply(0, updateOf(1));
  reducer.apply(0, updateOf(1));
  assert.throws(() => reducer.apply(0, updateOf(1, 0.5)), misuse);
  assert.throws(() => reducer.discard(0), misuse);
  assert.throws(() => reducer.restartStep(0), misuse);
  assert.throws(() => reducer.openStep(-1), misuse);
  assert.deepEqual(reducer.status, {
    ...{ isLoaded: true, version: 1, step: 0, stage: "applied" },
    ...{ numSquaresKept: 0, isFisherFinished: false, numApplied: 1, numAppliesRepeated: 1 },
  });
  reducer.startOver();
  assert.equal(reducer.status.isLoaded, false);
  assert.ok(reducer.arithmetic.masters.every((value) => value === 0));
});

test("a later coordinator takes the members of the one before away; an earlier one is refused", () => {
  const fence = new Fence({ runId: "run", epoch: 2 });
  const pass = { runId: "run", workerId: "worker", secret: "secret" };
  fence.change({ kind: "admit", workerId: "worker", secret: "secret" });
  fence.change({
    kind: "grant",
    lease: { id: 7, workerId: "worker", step: 0, group: 0, isVerified: false },
  });
  fence.assertMember({ ...pass, epoch: 2 });
  assert.deepEqual(fence.open({ runId: "run", epoch: 2 }), []);
  fence.assertMember({ ...pass, epoch: 2 });
  assert.deepEqual(fence.open({ runId: "run", epoch: 5 }), [7]);
  assert.throws(() => fence.assertMember({ ...pass, epoch: 5 }), { code: "E_UNKNOWN_WORKER" });
  assert.throws(() => fence.assertMember({ ...pass, epoch: 2 }), { code: "E_STALE_RUN" });
  const stale = { code: "E_STALE_COORDINATOR" };
  assert.throws(() => fence.open({ runId: "run", epoch: 4 }), stale);
  assert.throws(() => fence.open({ runId: "other", epoch: 9 }), stale);
});
