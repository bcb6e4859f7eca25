import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Supervisor } from "#run/supervisor";

const limit = { timeout: 60_000 };

test("a process that ran for a while is started again however often that was", limit, async (t) => {
  const logDirectory = await mkdtemp(join(tmpdir(), "lockstep-supervisor-"));
  t.after(() => rm(logDirectory, { recursive: true }));
  const exitsOf = (steadyMs: number, enough: number): Promise<number> =>
    new Promise((resolve) => {
      let numExits = 0;
      const supervisor = new Supervisor({
        ...{ numWorkers: 1, role: "reducer", workerArgs: [], ownArgs: () => [] },
        ...{ environment: () => ({}), logDirectory, maxRestarts: 1, steadyMs },
        command: ["-e", "process.exit(1)"],
        onLogFailure: () => {},
        onExit: ({ restartInMs }) => {
          numExits += 1;
          if (numExits < enough && restartInMs !== undefined) return;
          // A restart that is due is given up then.
          setImmediate(() => {
            supervisor.killAll();
            resolve(numExits);
          });
        },
        onExhausted: () => {},
      });
      supervisor.start();
    });
  assert.equal(await exitsOf(Number.POSITIVE_INFINITY, 4), 2);
  assert.equal(await exitsOf(0, 4), 4);
});
