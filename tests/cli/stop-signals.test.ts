import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { packageRoot } from "#lib/core/paths";

const url = (name: string): string => pathToFileURL(join(packageRoot, "dist/cli", name)).href;

/** From when the program has a signal: longer than what comes this soon after it is taken for the same request. */
const laterMs = 650;

/** A program that can finish nothing before it is told to. @returns its exit code, or what it said in order */
async function after(
  signals: readonly (NodeJS.Signals | "later")[],
  user: "save" | "stop" = "stop",
): Promise<{ readonly code: number | null; readonly said: readonly string[] }> {
  const program = `
    import { onStopSignals } from ${JSON.stringify(url("stop-signals.js"))};
    const say = (text) => process.stdout.write(text + "\\n");
    const { received } = onStopSignals({
      onFirst: (signal) => { say("first " + signal); return true; },
      onSecond: () => say("second"),
      onUserSignal: (signal) => { if (${user === "save"}) say("user " + signal); return ${user === "save"}; },
    });
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGUSR2"]) {
      process.on(signal, () => say("got " + signal));
    }
    process.stdin.on("data", () => {}).on("end", () => { say("received " + received()); process.exit(0); });
    say("ready");
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, _: process.execPath },
  });
  const said: string[] = [];
  const lines = createInterface({ input: child.stdout });
  const closed = new Promise<number | null>((resolve) => child.on("close", resolve));
  let got: Promise<void> = Promise.resolve();
  let hasGot = (_line: string): void => {};
  await new Promise<void>((resolve) => {
    lines.on("line", (line) => {
      if (line === "ready") resolve();
      else if (line.startsWith("got ")) hasGot(line);
      else said.push(line);
    });
  });
  for (const signal of signals) {
    if (signal === "later") {
      await Promise.race([got, closed]);
      await new Promise((resolve) => setTimeout(resolve, laterMs));
      continue;
    }
    got = new Promise((resolve) => {
      hasGot = (line) => {
        if (line === `got ${signal}`) resolve();
      };
    });
    child.kill(signal);
  }
  child.stdin.end();
  return { code: await closed, said };
}

test("a second signal exits at once, with its code", async () => {
  for (const [first, second, code] of [
    ["SIGINT", "SIGINT", 130],
    ["SIGTERM", "SIGQUIT", 131],
    ["SIGHUP", "SIGHUP", 129],
    ["SIGHUP", "SIGTERM", 143],
  ] as const) {
    const outcome = await after([first, "later", second, "later"]);
    assert.deepEqual(outcome, { code, said: [`first ${first}`, "second"] });
  }
});

test("signals that belong together are one request", async () => {
  // `timeout` signals a program and its group; a terminal that closes sends SIGHUP twice.
  for (const signal of ["SIGTERM", "SIGHUP"] as const) {
    const { code, said } = await after([signal, signal, signal, "later"]);
    assert.equal(code, 0);
    assert.deepEqual([said[0], said.at(-1)], [`first ${signal}`, `received ${signal}`]);
    assert.ok(!said.includes("second"));
  }
});

test("a terminal that closes after Ctrl-C does not cut the saving short", async () => {
  const { code, said } = await after(["SIGINT", "later", "SIGHUP", "later"]);
  assert.deepEqual({ code, said }, { code: 0, said: ["first SIGINT", "received SIGINT"] });
});

test("a limit of CPU time asks once, however often it tells", async () => {
  const { code, said } = await after(["SIGXCPU", "later", "SIGXCPU", "later"]);
  assert.deepEqual({ code, said }, { code: 0, said: ["first SIGXCPU", "received SIGXCPU"] });
});

test("SIGUSR1 that stops, and the SIGTERM that it announced: one orderly end", async () => {
  const orderly = await after(["SIGUSR1", "later", "SIGUSR2", "SIGTERM", "later"]);
  assert.deepEqual(orderly, { code: 0, said: ["first SIGUSR1", "received SIGTERM"] });
  const hastened = await after(["SIGUSR1", "later", "SIGTERM", "later", "SIGTERM", "later"]);
  assert.deepEqual(hastened, { code: 143, said: ["first SIGUSR1", "second"] });
  const saved = await after(["SIGUSR1", "later", "SIGUSR2", "later"], "save");
  assert.deepEqual(saved, {
    code: 0,
    said: ["user SIGUSR1", "user SIGUSR2", "received undefined"],
  });
});
