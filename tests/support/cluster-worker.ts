import { randomUUID } from "node:crypto";
import { LockstepError } from "#lib/core/errors/index";
import type { WorkerPhase } from "#worker/options";
import { runWorker } from "#worker/worker";

/**
 * A worker process with the fake engine, and with faults at exact points of its loop:
 *   LOCKSTEP_TEST_FAULT="phase:step"       kills itself with SIGKILL (mid-push: on the last shard, by chunk)
 *   LOCKSTEP_TEST_STALL="phase:step,..."   waits there, once each, for the message "go"; heartbeats go on
 *   LOCKSTEP_TEST_DRAIN="phase:step"       is asked to leave there, within LOCKSTEP_TEST_DRAIN_GRACE_MS if that is given
 *   LOCKSTEP_TEST_ENGINE=URL               computes with this engine instead
 *   LOCKSTEP_TEST_HOLD="phase:step"        holds the step's first push, half sent, until another group of
 *                                          the step is that far; then LOCKSTEP_TEST_FAULT "held" kills the
 *                                          process there, "held-fails" makes all its attempts fail
 */
const matches = (spec: string, { phase, ...facts }: WorkerPhase): boolean => {
  const [wantedPhase, wantedStep] = spec.split(":");
  if (phase !== wantedPhase) return false;
  if ("shard" in facts && facts.shard !== 1) return false;
  return !("step" in facts) || facts.step === Number(wantedStep);
};

const fault = process.env["LOCKSTEP_TEST_FAULT"];
const stalls = (process.env["LOCKSTEP_TEST_STALL"] ?? "").split(",");

const drainAt = process.env["LOCKSTEP_TEST_DRAIN"];
const graceMs = process.env["LOCKSTEP_TEST_DRAIN_GRACE_MS"];
const drain = new AbortController();

const hold = process.env["LOCKSTEP_TEST_HOLD"];
let heldGroup: number | undefined;
let numFailed = 0;
let letGo = (): void => {};
const released = new Promise<void>((resolve) => {
  letGo = resolve;
});

async function holdPush(phase: WorkerPhase): Promise<void> {
  if (hold === undefined || phase.phase === "asking") return;
  if (phase.step !== Number(hold.split(":")[1])) return;
  if (phase.phase === "pushing" && phase.shard === 1) heldGroup ??= phase.group;
  if (heldGroup === undefined) return;
  if (phase.group !== heldGroup) {
    if (!matches(hold, phase)) return;
    if (fault === "held") process.kill(process.pid, "SIGKILL");
    letGo();
  } else if (phase.phase === "pushing" && phase.shard === 1) {
    await released;
    if (fault === "held-fails" && numFailed < 3) {
      numFailed += 1;
      throw new LockstepError("E_TRANSFER_INCOMPLETE", {
        address: "shard 1",
        what: "a gradient",
        receivedBytes: 0,
        expectedBytes: phase.sentBytes,
      });
    }
  }
}

const send = (fact: unknown): void => {
  process.send?.(fact);
};

try {
  const outcome = await runWorker({
    coordinatorAddress: process.env["LOCKSTEP_TEST_COORDINATOR"] ?? "",
    name: process.env["LOCKSTEP_TEST_NAME"] ?? "",
    incarnation: process.env["LOCKSTEP_TEST_INCARNATION"] ?? randomUUID(),
    security: JSON.parse(process.env["LOCKSTEP_TEST_SECURITY"] ?? "{}"),
    deviceKind: process.env["LOCKSTEP_TEST_DEVICE_KIND"] ?? "fake",
    engineModule:
      process.env["LOCKSTEP_TEST_ENGINE"] ?? new URL("./fake-engine.js", import.meta.url).href,
    reconnectTimeoutMs: 20_000,
    drain: drain.signal,
    ...(graceMs === undefined ? {} : { drainGraceMs: Number(graceMs) }),
    observer: {
      told: (line) => send({ told: line }),
      parametersLoaded: (version) => send({ loaded: version }),
    },
    onPhase: async (phase) => {
      if (phase.phase !== "pushing") send(phase);
      if (fault !== undefined && matches(fault, phase)) process.kill(process.pid, "SIGKILL");
      if (drainAt !== undefined && matches(drainAt, phase)) drain.abort();
      const stall = stalls.findIndex((spec) => matches(spec, phase));
      if (stall >= 0) {
        stalls.splice(stall, 1);
        await new Promise((resolve) => process.once("message", resolve));
      }
      await holdPush(phase);
    },
  });
  send(outcome);
  process.disconnect?.();
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
  process.disconnect?.();
}
