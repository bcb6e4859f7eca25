import type { WorkerPhase } from "#worker/options";
import { runWorker } from "#worker/worker";

/**
 * A worker process with the fake engine, and with faults at exact points of its loop:
 *   LOCKSTEP_TEST_FAULT="phase:step"       kills itself with SIGKILL (mid-push: on the last shard, by chunk)
 *   LOCKSTEP_TEST_STALL="phase:step"       waits there, once, for the message "go"; heartbeats go on
 */
const matches = (spec: string, { phase, ...facts }: WorkerPhase): boolean => {
  const [wantedPhase, wantedStep] = spec.split(":");
  if (phase !== wantedPhase) return false;
  if ("shard" in facts && facts.shard !== 1) return false;
  return !("step" in facts) || facts.step === Number(wantedStep);
};

const fault = process.env["LOCKSTEP_TEST_FAULT"];
let stall = process.env["LOCKSTEP_TEST_STALL"];

const send = (fact: unknown): void => {
  process.send?.(fact);
};

try {
  const outcome = await runWorker({
    coordinatorAddress: process.env["LOCKSTEP_TEST_COORDINATOR"] ?? "",
    name: process.env["LOCKSTEP_TEST_NAME"] ?? "",
    security: JSON.parse(process.env["LOCKSTEP_TEST_SECURITY"] ?? "{}"),
    deviceKind: process.env["LOCKSTEP_TEST_DEVICE_KIND"] ?? "fake",
    engineModule: new URL("./fake-engine.js", import.meta.url).href,
    reconnectTimeoutMs: 20_000,
    onPhase: async (phase) => {
      if (phase.phase !== "pushing") send(phase);
      if (fault !== undefined && matches(fault, phase)) process.kill(process.pid, "SIGKILL");
      if (stall !== undefined && matches(stall, phase)) {
        stall = undefined;
        await new Promise((resolve) => process.once("message", resolve));
      }
    },
  });
  send(outcome);
  process.disconnect?.();
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
  process.disconnect?.();
}
