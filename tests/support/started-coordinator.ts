import { after } from "node:test";
import { Coordinator } from "#coordinator/coordinator";
import type { CoordinatorOptions } from "#coordinator/options";
import { coordinatorOptions, EventRecorder } from "./cluster.js";

/** Of a test with a coordinator and workers: far longer than one takes on a busy machine. */
export const limit = { timeout: 240_000 };

const started: Coordinator[] = [];

// The run of a test that fails in the middle would keep the file alive.
after(() => {
  for (const coordinator of started) coordinator.fail(new Error("the tests of its file are over"));
});

export interface StartedCoordinator {
  readonly coordinator: Coordinator;
  /** All that it has told. */
  readonly recorder: EventRecorder;
  /** Where workers call it, and its port alone. */
  readonly address: string;
  readonly port: number;
}

/** A coordinator of the run that tests have, which listens; its run has not begun. */
export async function startCoordinator(
  totalSteps: number,
  overrides: Partial<CoordinatorOptions> = {},
): Promise<StartedCoordinator> {
  const recorder = new EventRecorder();
  const coordinator = new Coordinator(coordinatorOptions(totalSteps, recorder.bus, overrides));
  started.push(coordinator);
  const { controlAddress: address, controlPort: port } = await coordinator.start();
  return { coordinator, recorder, address, port };
}
