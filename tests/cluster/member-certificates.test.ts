import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { BulkClient } from "#lib/wire/bulk-client";
import { ControlClient } from "#lib/wire/control-client";
import type { WireSecurity } from "#lib/wire/security";
import { TestAuthority } from "#tests/support/certificates";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { ScriptedMember, testIdentity } from "#tests/support/scripted-member";

const totalSteps = 3;
const joinToken = "known to every worker";
let authority: TestAuthority;
before(async () => {
  authority = await TestAuthority.create();
});
after(() => authority.remove());

async function securityOf(name: string): Promise<WireSecurity> {
  const { cert, key } = await authority.issue(name);
  const [ca, certText, keyText] = await Promise.all(
    [authority.caFile, cert, key].map(async (file) => readFile(file, "utf8")),
  );
  const tls = { ca: String(ca), cert: String(certText), key: String(keyText) };
  return { joinToken, tls };
}

test(
  "who has another worker's pass but not its certificate cannot speak for it, anywhere",
  limit,
  async (t) => {
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      security: await securityOf("localhost"),
      // The member sends none.
      heartbeatTimeoutMs: 60_000,
    });
    const running = coordinator.run();
    const honest = await securityOf("worker-1");
    const identity = testIdentity("honest");
    const member = await ScriptedMember.join(address, identity, honest);
    const { workerId, pass, shardAddresses } = member;
    const task = await member.lease();
    const { gradient, sums } = await member.compute(task);

    const clientOf = (security: WireSecurity): ControlClient => {
      const control = new ControlClient({ address, security });
      control.usePass(pass);
      t.after(() => control.close());
      return control;
    };
    const shardOf = (security: WireSecurity): BulkClient => {
      const shard = new BulkClient({ address: String(shardAddresses[0]), security, pass });
      t.after(() => shard.close());
      return shard;
    };
    const thief = await securityOf("worker-2");
    const control = clientOf(thief);
    const expected =
      /E_CERTIFICATE_MISMATCH.*worker honest came with the certificate of CN=worker-2, .*registered with that of CN=worker-1, /;
    const report = {
      state: "idle",
      utilization: 0,
      memoryUsedBytes: 0,
      memoryTotalBytes: 0,
    } as const;
    const result = { kind: "losses", sums: [{ lossSum: 1, weight: 1 }] } as const;
    const failure = { lease: task.lease, code: "", message: "no", fatal: true };
    for (const call of [
      () => control.nextTask({ workerId, maxWaitMs: 0, heldLeases: [] }),
      () => control.completeTask({ workerId, lease: task.lease, result }),
      () => control.heartbeat({ workerId, ...report, deviceSeconds: 0 }),
      () => control.leave({ workerId, reason: "gone" }),
      () => control.reportFailure({ workerId, ...failure }),
    ]) {
      await assert.rejects(call, expected);
    }
    const { step, group, lease, version } = task;
    const wrong = new Uint8Array(gradient.length / shardAddresses.length);
    const shard = shardOf(thief);
    await assert.rejects(shard.pushGradients({ step, group, lease }, wrong), expected);
    await assert.rejects(shard.pullParameters({ version }, wrong), expected);

    // The process of another certificate that says it is the same one takes nobody's place.
    const twin = await ScriptedMember.join(address, identity, thief);
    assert.notEqual(twin.workerId, workerId);
    await twin.control.leave({ workerId: twin.workerId, reason: "done" });
    twin.close();

    // A renewed certificate of the same names is the same worker's.
    await clientOf(await securityOf("worker-1")).heartbeat({
      ...{ workerId, ...report, deviceSeconds: 0 },
    });
    await member.push(task, gradient);
    assert.equal(await member.report(lease, sums), false);
    assert.deepEqual(
      recorder.of("worker.lost").map(({ workerId: lost }) => lost),
      [],
    );
    await member.control.leave({ workerId, reason: "done" });
    member.close();
    const env = { LOCKSTEP_TEST_SECURITY: JSON.stringify(await securityOf("worker-3")) };
    const worker = spawnWorker(address, env);
    const { mastersSha256 } = await running;
    assert.equal(mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
    assert.equal((await worker.exited).code, 0);
  },
);

test("workers that share a certificate are told apart by their secrets", limit, async () => {
  const shared = await securityOf("localhost");
  const { coordinator, address } = await startCoordinator(totalSteps, {
    ...{ security: shared, minWorkers: 2 },
  });
  const running = coordinator.run();
  const env = { LOCKSTEP_TEST_SECURITY: JSON.stringify(shared) };
  const workers = [spawnWorker(address, env), spawnWorker(address, env)];
  const { mastersSha256 } = await running;
  assert.equal(mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
  for (const { exited } of workers) assert.equal((await exited).code, 0);
});
