import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "node:test";
import { hasBf16Products, readProcessor } from "#lib/core/processor";
import { ControlClient } from "#lib/wire/control-client";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/ports";
import { registered, ScriptedMember, testIdentity } from "#tests/support/scripted-member";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { createTinyJob } from "#tests/support/tiny-job";

// Equal bits need one kind of device, and no single member chooses it for the others.

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

/** A device that nobody else has. */
const stranger = () => ({ ...testIdentity("stranger"), deviceKind: "of another world" });

/** Knocks for as long as it is told to ask again. @returns the code that ends it */
async function knockOn(address: string, identity = stranger()): Promise<string | undefined> {
  const control = new ControlClient({ address, security: {} });
  try {
    await registered(control, identity);
    return undefined;
  } catch (error) {
    return remoteErrorCode(error) ?? String(error);
  } finally {
    control.close();
  }
}

test("who comes first with a kind of its own keeps nobody out", limit, async () => {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    plannedWorkers: 3,
    kindWaitMs: 600_000,
  });
  const running = coordinator.run();
  const end = knockOn(address);
  await recorder.until(
    (event) =>
      event.type === "phase.changed" &&
      /^1 worker here; .*more than half of 3/.test(event.detail ?? ""),
  );
  const workers = [0, 1, 2].map(() =>
    spawnWorker(address, { LOCKSTEP_TEST_STALL: "leased:0", LOCKSTEP_TEST_NAME: "honest" }),
  );
  await recorder.until(() => recorder.of("worker.joined").length === 3);
  for (const { process: child } of workers) child.send("go");
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
  for (const { exited } of workers) assert.equal((await exited).code, 0);
  // It asks now and then: the run may be over before it does.
  assert.match((await end) ?? "", /^E_(DEVICE_KIND_MISMATCH|COORDINATOR_UNREACHABLE|RUN_OVER)$/);
  assert.equal(coordinator.deviceKind, "fake");
  assert.ok(recorder.of("worker.joined").every(({ workerId }) => workerId.startsWith("honest")));
});

test("a member that joined with a kind of its own and did nothing is outvoted", limit, async () => {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    plannedWorkers: 3,
    heartbeatTimeoutMs: 120_000,
  });
  const running = coordinator.run();
  const member = await ScriptedMember.join(address, stranger());
  const task = await member.lease();
  const { gradient } = await member.compute(task);
  const workers = [0, 1, 2].map(() => spawnWorker(address));
  await recorder.until(({ type }) => type === "worker.lost");
  const [lost] = recorder.of("worker.lost");
  assert.equal(lost?.workerId, "stranger");
  assert.match(lost?.reason ?? "", /"of another world".*most workers have "fake"/);
  // Its bytes come too late: they are of no lease.
  await assert.rejects(member.push(task, gradient));
  member.close();
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
  for (const { exited } of workers) assert.equal((await exited).code, 0);
  assert.equal(coordinator.deviceKind, "fake");
});

test(
  "a run that starts its own workers computes on their kind, and in the precision of it",
  limit,
  async (t) => {
    const job = await createTinyJob({ bf16: "auto", workers: 1, gradient_groups: 2, max_steps: 2 });
    t.after(() => job.remove());
    const run = async (name: string, args: readonly string[]) => {
      const outcome = await lockstepCommand(
        [
          "train",
          job.configFile,
          "--json-logs",
          "--output-dir",
          join(job.directory, name),
          ...args,
        ],
        join(job.directory, "cache"),
      );
      assert.equal(outcome.code, 0, outcome.stderr);
      return outcome;
    };
    const expected = await run("alone", []);
    const port = await freePorts(3);
    const address = `127.0.0.1:${port}`;
    const advisesBf16 = !hasBf16Products(readProcessor());
    let isOver = false;
    // Two of them, there before anybody else.
    const ends = [stranger(), stranger()].map(async (identity) => {
      let code: string | undefined;
      while (!isOver && code !== "E_DEVICE_KIND_MISMATCH") {
        code = await knockOn(address, { ...identity, advisesBf16 });
        await delay(20);
      }
      return code;
    });
    const found = await run("beside", ["--listen", address]);
    isOver = true;
    await Promise.all(ends);
    const [one, other] = [expected, found].map((outcome) => outcome.of("run.completed")[0]);
    assert.equal(other?.mastersSha256, one?.mastersSha256);
    assert.equal(found.of("worker.joined").length, 1);
  },
);
