import assert from "node:assert/strict";
import { test } from "node:test";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { ScriptedMember, testIdentity } from "#tests/support/scripted-member";

const totalSteps = 2;
const numGroups = 4;

test(
  "a process that registers again is no second opinion, and stays out for what it did before",
  limit,
  async () => {
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      verifyGroups: 1,
      heartbeatTimeoutMs: 60_000,
    });
    const running = coordinator.run();
    const identity = testIdentity("liar");
    /** Sends the same wrong bits for every group that it gets. */
    const lie = async (member: ScriptedMember): Promise<void> => {
      const task = await member.lease();
      const { gradient, sums } = await member.compute(task);
      await member.push(
        task,
        gradient.map((byte) => byte ^ 1),
      );
      await member.report(task.lease, sums);
    };
    const once = await ScriptedMember.join(address, identity);
    for (let group = 0; group < numGroups; group++) await lie(once);
    once.close();
    const again = await ScriptedMember.join(address, identity);
    const lying = (async () => {
      for (;;) await lie(again);
    })();
    const isOut = assert.rejects(lying);
    const honest = Array.from({ length: 3 }, () => spawnWorker(address));
    const { mastersSha256 } = await running;
    await isOut;
    again.close();
    for (const { exited } of honest) assert.equal((await exited).code, 0);
    assert.equal(mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
    assert.deepEqual(
      recorder.of("worker.quarantined").map(({ workerId }) => workerId),
      ["liar"],
    );
  },
);
