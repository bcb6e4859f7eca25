import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { stateOf, thisProcess } from "#lib/core/process-identity";
import { descendantsOf } from "#tests/support/processes";

const statOf = (pid: number): string => readFileSync(`/proc/${pid}/stat`, "utf8");

test("a process is itself, and no other of its id", () => {
  const own = thisProcess();
  assert.equal(stateOf(own), "running");
  assert.equal(stateOf({ ...own, startTicks: null }), "running");
  assert.equal(stateOf({ ...own, startTicks: (own.startTicks ?? 0) + 1 }), "gone");
  assert.equal(stateOf({ ...own, domain: `${own.domain} of a container` }), "unknown");
  assert.equal(stateOf({ ...own, domain: null }), "unknown");
});

test("a process that ended is gone, before its parent knows too", async () => {
  // The shell becomes a program that waits for nobody.
  const shell = spawn("sh", ["-c", "sleep 1000 & echo; exec tail -f /dev/null"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  await once(shell.stdout, "data");
  const child = descendantsOf(shell.pid as number)[0] as number;
  const identity = { ...thisProcess(), pid: child, startTicks: null };
  assert.equal(stateOf(identity), "running");
  process.kill(child, "SIGKILL");
  while (!/\) Z /.test(statOf(child))) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(stateOf(identity), "gone");
  shell.kill("SIGKILL");
  await once(shell, "exit");
  assert.equal(stateOf({ ...identity, pid: shell.pid as number }), "gone");
});
