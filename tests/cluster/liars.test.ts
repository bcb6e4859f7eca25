import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "node:test";
import type { CoordinatorOptions, RunOutcome } from "#coordinator/options";
import type { LossSum } from "#lib/core/job";
import type { TrainTask } from "#lib/wire/control-messages";
import { evaluationBatches, type EventRecorder, sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { ScriptedMember, testIdentity } from "#tests/support/scripted-member";

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

interface Computed {
  readonly gradient: Uint8Array;
  readonly sums: readonly LossSum[];
}

/** What a member does with a group. */
type Lie = (
  member: ScriptedMember,
  task: TrainTask,
  honest: Computed,
  run: { readonly recorder: EventRecorder },
) => Promise<unknown>;

const bytesOfNaN = (length: number): Uint8Array => new Uint8Array(length).fill(0xff);

const sends =
  (change: (honest: Computed) => Partial<Computed>): Lie =>
  async (member, task, honest) => {
    const { gradient, sums } = { ...honest, ...change(honest) };
    await member.push(task, gradient);
    await member.report(task.lease, sums);
  };

/** A run with a member that lies for as long as it is let, and honest workers once it has a lease. */
async function runWithLiar(
  lie: Lie,
  overrides: Partial<CoordinatorOptions> = {},
  numHonest = 3,
): Promise<{ outcome: RunOutcome; recorder: EventRecorder; liar: string; end: unknown }> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    heartbeatTimeoutMs: 60_000,
    ...overrides,
  });
  const running = coordinator.run();
  const liar = await ScriptedMember.join(address, testIdentity("liar"));
  let end: unknown;
  let numOthers = 0;
  const othersJoined = recorder.until(
    (event) =>
      event.type === "worker.joined" && event.workerId !== "liar" && ++numOthers === numHonest,
  );
  const lying = (async () => {
    for (;;) {
      const task = await liar.lease();
      await othersJoined;
      await lie(liar, task, await liar.compute(task), { recorder });
    }
  })().catch((error: unknown) => {
    end = error;
  });
  await recorder.until(({ type }) => type === "group.leased");
  const honest = Array.from({ length: numHonest }, () => spawnWorker(address));
  const outcome = await running;
  await lying;
  liar.close();
  for (const { exited } of honest) {
    const { code, stderr } = await exited;
    assert.equal(code, 0, stderr);
  }
  return { outcome, recorder, liar: liar.workerId, end };
}

function assertUnharmed({ outcome, recorder }: Awaited<ReturnType<typeof runWithLiar>>): void {
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  const steps = recorder.of("step.completed");
  assert.deepEqual(
    steps.map(({ loss }) => loss),
    oracle.losses,
  );
  const done = recorder.of("group.completed").map(({ step, group }) => `${step}/${group}`);
  assert.deepEqual([new Set(done).size, done.length], [totalSteps * 4, totalSteps * 4]);
}

function assertNamed({ recorder, liar }: Awaited<ReturnType<typeof runWithLiar>>, why: RegExp) {
  const kept = recorder.of("worker.quarantined");
  assert.deepEqual(
    kept.map(({ workerId }) => workerId),
    [liar],
  );
  assert.match(kept[0]?.reason ?? "", why);
}

test(
  "with verify_groups: 1 wrong bytes with right checksums do not count, and their worker is named",
  limit,
  async () => {
    const flip = sends(({ gradient }) => ({
      gradient: gradient.map((byte, i) => byte ^ Number(i % 1000 === 0)),
    }));
    const result = await runWithLiar(flip, { verifyGroups: 1 });
    assertUnharmed(result);
    assertNamed(result, /computed other bits of group \d of step \d than others agree on/);
    const diverged = result.recorder.of("group.diverged");
    assert.ok(diverged.length > 0);
    for (const { workerIds } of diverged) assert.ok(workerIds.includes(result.liar));
  },
);

test(
  "with verify_groups: 1 wrong losses do not count either, nor those of evaluations",
  limit,
  async () => {
    const result = await runWithLiar(
      sends(({ sums }) => ({ sums: sums.map((sum) => ({ ...sum, lossSum: sum.lossSum + 1 })) })),
      {
        verifyGroups: 1,
        evaluation: { batches: evaluationBatches, atStart: false, atEnd: true, everySteps: 0 },
      },
    );
    assertUnharmed(result);
    assertNamed(result, /other bits/);
    assert.equal(result.outcome.evaluations[0]?.loss, oracle.evaluationLosses[1]);
  },
);

test("a gradient that only one worker finds not to be finite is not left out", limit, async () => {
  const result = await runWithLiar(
    sends(({ gradient }) => ({ gradient: bytesOfNaN(gradient.length) })),
  );
  assertUnharmed(result);
  assertNamed(result, /computed other bits of group/);
});

/** @param makesEngine what else a member does that makes its engine, until others may come */
async function assertStartingIsAwaited(
  leaseTimeoutMs: number,
  makesEngine: (member: ScriptedMember) => Promise<unknown> = async () => {},
): Promise<void> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    ...{ heartbeatTimeoutMs: 300_000, leaseTimeoutMs },
  });
  const running = coordinator.run();
  const liar = await ScriptedMember.join(address, testIdentity("liar"));
  const starting = await ScriptedMember.join(address, testIdentity("starting"));
  const lying = (async () => {
    for (;;) {
      const task = await liar.lease();
      const { gradient, sums } = await liar.compute(task);
      await liar.push(task, bytesOfNaN(gradient.length));
      await liar.report(task.lease, sums);
    }
  })().catch(() => {});
  await recorder.until((event) => event.type === "note" && /not finite/.test(event.text));
  await makesEngine(starting);
  assert.deepEqual(recorder.of("step.completed"), []);
  const honest = [spawnWorker(address), spawnWorker(address)];
  const outcome = await running;
  await lying;
  for (const member of [liar, starting]) member.close();
  for (const { exited } of honest) assert.equal((await exited).code, 0);
  assertUnharmed({ outcome, recorder, liar: liar.workerId, end: undefined });
}

test("who has joined just now is waited for to confirm a gradient", limit, async () =>
  assertStartingIsAwaited(200_000),
);

test("so is who says that it makes its engine, for longer than a lease", limit, async () => {
  const leaseTimeoutMs = 1_000;
  await assertStartingIsAwaited(leaseTimeoutMs, async ({ control, workerId }) => {
    const load = { utilization: 0, memoryUsedBytes: 0, memoryTotalBytes: 0, deviceSeconds: 0 };
    const since = performance.now();
    while (performance.now() - since < 3 * leaseTimeoutMs) {
      await control.heartbeat({ workerId, state: "compiling", ...load });
      await delay(100);
    }
  });
});

test(
  "a count of other tokens than the group has keeps its worker out, and the group is computed again",
  limit,
  async () => {
    const result = await runWithLiar(
      sends(({ sums }) => ({ sums: sums.map((sum) => ({ ...sum, weight: sum.weight + 1 })) })),
    );
    assertUnharmed(result);
    assertNamed(result, /counted 62 supervised tokens in group \d of step 1, the plan has 60/);
    assert.match(String(result.end), /E_TOKEN_COUNT/);
  },
);

test("a group that was reported and never sent goes to another worker", limit, async () => {
  const result = await runWithLiar(
    async (member, task, { sums }) => member.report(task.lease, sums),
    {
      bytesAfterReportMs: 500,
    },
  );
  assertUnharmed(result);
  const leased = result.recorder.of("group.leased");
  const mine = leased.filter(({ workerId }) => workerId === result.liar);
  assert.ok(mine.length > 0);
  // Queued again, or computed beside a worker that took longer than the others even before its report.
  for (const { step, group } of mine) {
    const others = leased.filter((each) => each.step === step && each.group === group);
    assert.ok(
      others.some(({ workerId }) => workerId !== result.liar),
      `group ${group} of ${step}`,
    );
  }
  for (const { workerId } of result.recorder.of("group.completed")) {
    assert.notEqual(workerId, result.liar);
  }
});

test(
  "two workers that computed different bits for one group are named, and a third one decides",
  limit,
  async () => {
    // The slow one's lease runs out, and it sends all the same, while the step is open.
    let isFirst = true;
    const result = await runWithLiar(
      async (member, task, { gradient, sums }, { recorder }) => {
        await member.push(task, isFirst ? gradient.map((byte) => byte ^ 1) : gradient);
        // Its bytes are there, its report is not: the others compute the group, too.
        if (isFirst) await recorder.until(({ type }) => type === "group.diverged");
        isFirst = false;
        await member.report(task.lease, sums);
      },
      { leaseTimeoutMs: 10_000 },
    );
    assertUnharmed(result);
    assert.ok(
      result.recorder.of("group.diverged").some(({ workerIds }) => workerIds.includes(result.liar)),
    );
    assertNamed(result, /computed other bits/);
  },
);

test(
  "where no two of them agree the run ends, named, and what was trained is saved",
  limit,
  async () => {
    const saved: number[] = [];
    const { coordinator, address } = await startCoordinator(totalSteps, {
      heartbeatTimeoutMs: 60_000,
      verifyGroups: 1,
      checkpointing: {
        everySteps: 0,
        save: async (_snapshot, { step }) => {
          saved.push(step);
          return { directory: "nowhere", bytes: 0 };
        },
      },
    });
    const running = coordinator.run();
    const outcome = assert.rejects(running, (error: Error & { code?: string }) => {
      assert.equal(error.code, "E_GROUP_DIVERGED");
      assert.match(error.message, /group \d of step 3, and no two agree: (one, two|two, one)/);
      return true;
    });
    const members = await Promise.all(
      ["one", "two"].map(async (name) => ScriptedMember.join(address, testIdentity(name))),
    );
    const ended = Promise.all(
      members.map(async (member, index) => {
        for (;;) {
          const task = await member.lease();
          const { gradient, sums } = await member.compute(task);
          const isWrong = task.step === 2 && index === 1;
          await member.push(task, isWrong ? gradient.map((byte) => byte ^ 1) : gradient);
          await member.report(task.lease, sums);
        }
      }),
    ).catch(() => {});
    await outcome;
    await ended;
    for (const member of members) member.close();
    assert.deepEqual(saved, [2]);
  },
);
