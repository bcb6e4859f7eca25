import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Sandbox } from "./sandbox.js";

let sandbox: Sandbox;
beforeEach(() => {
  sandbox = new Sandbox();
});
afterEach(() => sandbox.remove());

const WHOLE_ENGINE = [
  "engine.json",
  "tensorflow",
  "tensorflow/libtensorflow_cc.so.2",
  "tfjs_binding.node",
];

async function installed(): Promise<void> {
  const { exitCode, output } = await sandbox.install().ended;
  assert.equal(exitCode, 0, output);
}

test("an engine is installed once, with the wanted members only", async () => {
  await installed();
  await installed();
  assert.deepEqual(sandbox.engineFiles(), WHOLE_ENGINE);
  assert.equal(sandbox.numCalls("pip"), 1);
  assert.equal(sandbox.numCalls("compiler"), 1);
});

test("a wheel with another checksum is refused and nothing of it stays", async () => {
  const wrong = "0".repeat(64);
  const { exitCode, output } = await sandbox.install({ sha256: wrong }).ended;
  assert.equal(exitCode, 1);
  assert.match(output, new RegExp(`expected SHA-256 ${wrong}, got ${sandbox.wheelSha256}`));
  assert.deepEqual(sandbox.engineEntries(), []);
  assert.equal(sandbox.numCalls("compiler"), 0);
});

test("an installation killed in the middle is no engine, and the next one starts clean", async () => {
  const stallPipe = sandbox.makePipe();
  const run = sandbox.install({ stallPipe });
  const pipPid = Number(await readFile(stallPipe, "utf8"));
  run.kill("SIGKILL");
  assert.equal((await run.ended).signal, "SIGKILL");
  process.kill(pipPid, "SIGKILL");
  const left = sandbox.engineEntries();
  assert.ok(
    left.every((name) => name.includes(".partial-") || name.endsWith(".lock")),
    left.join(),
  );
  assert.equal(left.filter((name) => name.includes(".partial-")).length, 1);

  await installed();
  assert.deepEqual(sandbox.engineFiles(), WHOLE_ENGINE);
});

test("a terminated installation takes its download and its lock with it", async () => {
  const stallPipe = sandbox.makePipe();
  const run = sandbox.install({ stallPipe });
  const pipPid = Number(await readFile(stallPipe, "utf8"));
  run.kill("SIGTERM");
  assert.equal((await run.ended).exitCode, 143);
  assert.deepEqual(sandbox.engineEntries(), []);
  assert.ok(!isRunning(pipPid), "pip ends with the installation");
});

test("two installations at once share one download", async () => {
  const outcomes = await Promise.all([sandbox.install().ended, sandbox.install().ended]);
  for (const { exitCode, output } of outcomes) assert.equal(exitCode, 0, output);
  assert.deepEqual(sandbox.engineFiles(), WHOLE_ENGINE);
  assert.equal(sandbox.numCalls("pip"), 1);
});

test("an installation that waited goes on when the holder of the lock is killed", async () => {
  const stallPipe = sandbox.makePipe();
  const holder = sandbox.install({ stallPipe });
  const pipPid = Number(await readFile(stallPipe, "utf8"));
  const waiting = sandbox.install();
  holder.kill("SIGKILL");
  await holder.ended;
  process.kill(pipPid, "SIGKILL");
  const { exitCode, output } = await waiting.ended;
  assert.equal(exitCode, 0, output);
  assert.deepEqual(sandbox.engineFiles(), WHOLE_ENGINE);
});

/** A killed process that nobody has waited for yet still has its number, in state Z. */
function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(join("/proc", String(pid), "stat"), "utf8");
    return !/\) Z /.test(stat);
  } catch {
    return false;
  }
}
