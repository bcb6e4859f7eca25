import assert from "node:assert/strict";
import { test } from "node:test";
import { BulkClient } from "#lib/wire/bulk-client";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { ScriptedMember } from "#tests/support/scripted-member";

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

/** Members of these tests do not tell that they are alive. */
const heartbeatTimeoutMs = 60_000;

test(
  "bytes of nobody, of a former life and of another's lease do not reach the result",
  limit,
  async () => {
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      heartbeatTimeoutMs,
      runId: "run",
      epoch: 7,
    });
    const running = coordinator.run();
    const member = await ScriptedMember.join(address);
    const thief = await ScriptedMember.join(address);
    assert.deepEqual([member.pass.runId, member.pass.epoch], ["run", 7]);
    const task = await member.lease();
    const { gradient, sums } = await member.compute(task);
    const wrong = Uint8Array.from(gradient, (byte) => byte ^ 1);
    const { shardAddresses } = member;
    const pushAs = async (change: Partial<typeof member.pass>): Promise<unknown> => {
      const pass = { ...member.pass, ...change };
      const client = new BulkClient({ address: shardAddresses[0] ?? "", security: {}, pass });
      try {
        const { step, group, lease } = task;
        return await client.pushGradients({ step, group, lease }, wrong.subarray(0, 1000));
      } finally {
        client.close();
      }
    };
    await assert.rejects(
      pushAs({ runId: "another" }),
      /E_STALE_RUN.*run another, epoch 7.*run run/,
    );
    await assert.rejects(pushAs({ epoch: 6 }), /E_STALE_RUN.*epoch 6.*epoch 7/);
    await assert.rejects(pushAs({ workerId: "nobody" }), /E_UNKNOWN_WORKER/);
    await assert.rejects(pushAs({ secret: "guessed" }), /E_UNKNOWN_WORKER/);
    // A member's own lease of another group, and another member's lease.
    await assert.rejects(
      member.push({ ...task, group: task.group + 1 }, wrong),
      /E_LEASE_NOT_HELD/,
    );
    await assert.rejects(member.push({ ...task, lease: 5 }, wrong), /E_LEASE_NOT_HELD/);
    await assert.rejects(thief.push(task, wrong), /E_LEASE_NOT_HELD.*does not hold lease/);
    await assert.rejects(thief.report(task.lease, sums), /E_LEASE_NOT_HELD/);
    // Once it has left, its lease is nobody's.
    await thief.control.leave({ workerId: thief.workerId, reason: "caught" });
    await assert.rejects(thief.push(task, wrong), /E_UNKNOWN_WORKER/);
    assert.deepEqual(await member.push(task, gradient), ["complete", "complete"]);
    assert.equal(await member.report(task.lease, sums), false);
    await member.control.leave({ workerId: member.workerId, reason: "enough" });
    const worker = spawnWorker(address);
    assert.equal((await running).mastersSha256, oracle.mastersSha256);
    assert.equal((await worker.exited).code, 0);
    const refused = recorder.of("push.refused").map(({ workerId, code }) => `${workerId} ${code}`);
    // Of those that come within a second the first few are told.
    for (const one of ["ghost E_STALE_RUN", "nobody E_UNKNOWN_WORKER", "ghost E_UNKNOWN_WORKER"]) {
      assert.ok(refused.includes(one), `${one} in ${refused.join(", ")}`);
    }
    member.close();
    thief.close();
  },
);

test("a pull shows whose it is, too", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps, { heartbeatTimeoutMs });
  const running = coordinator.run();
  const member = await ScriptedMember.join(address);
  const pass = { ...member.pass, epoch: member.pass.epoch + 1 };
  const client = new BulkClient({ address: member.shardAddresses[0] ?? "", security: {}, pass });
  await assert.rejects(client.pullParameters({ version: 0 }, new Uint8Array(8)), /E_STALE_RUN/);
  client.close();
  await member.control.leave({ workerId: member.workerId, reason: "" });
  member.close();
  spawnWorker(address);
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
});
