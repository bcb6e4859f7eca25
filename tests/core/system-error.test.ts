import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { openSync, writeSync } from "node:fs";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { explainSystemError } from "#lib/core/system-error";

const thrownBy = (action: () => unknown): unknown => {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
};

const lineOf = (error: unknown, where?: string): string => {
  const explained = explainSystemError(error, where);
  return isLockstepError(explained) ? `${explained.code}: ${explained.message}` : "passes";
};

/** An error as Node makes it of a number of the system. */
const systemError = (code: string, facts: Readonly<Record<string, string>> = {}): Error =>
  Object.assign(new Error(`${code}: refused`), { code, ...facts });

test("what a full device answers is an error of the catalogue", () => {
  const device = openSync("/dev/full", "w");
  const error = thrownBy(() => writeSync(device, "x"));
  assert.match(lineOf(error, "a log"), /^E_DISK_FULL: No space is left .* while writing a log\.$/);
  assert.match(lineOf(systemError("EDQUOT", { path: "/q" })), /^E_DISK_FULL: The quota .* \/q\.$/);
});

test("what a limit of open files answers is an error of the catalogue", () => {
  // In a process of its own, which has no descriptor left.
  const script = `
    const fs = require("node:fs");
    const errors = [];
    for (;;) try { fs.openSync("/dev/null") } catch (error) { errors.push(error); break; }
    const { code, path, syscall, message } = errors[0];
    fs.writeSync(1, JSON.stringify({ code, path, syscall, message }));
  `;
  const command = ["-c", 'ulimit -n 40; exec "$0" -e "$1"', process.execPath, script];
  const { message, ...facts } = JSON.parse(execFileSync("sh", command).toString()) as Record<
    string,
    string
  >;
  const error = Object.assign(new Error(message), facts);
  assert.match(lineOf(error), /^E_TOO_MANY_FILES: \/dev\/null cannot be opened: this process has/);
  assert.match(lineOf(systemError("ENFILE", { syscall: "accept" })), /\(accept\).*the machine has/);
});

test("a process that cannot be started is an error of the catalogue, a program that is none passes", async () => {
  for (const code of ["EAGAIN", "ENOMEM", "EMFILE"]) {
    const error = systemError(code, { syscall: "spawn node", path: "node" });
    assert.match(lineOf(error), /^E_PROCESS_START: The process of node cannot be started: E/);
  }
  const missing = await new Promise((resolve) => spawn("/no/such/program").on("error", resolve));
  assert.equal(lineOf(missing), "passes");
});

test("errors of the catalogue, of files that are not there and of a program itself pass", () => {
  for (const error of [systemError("ENOENT"), new TypeError("a bug"), "text", undefined]) {
    assert.equal(explainSystemError(error), error);
  }
  const explained = explainSystemError(systemError("ENOSPC"));
  assert.equal(explainSystemError(explained), explained);
});
