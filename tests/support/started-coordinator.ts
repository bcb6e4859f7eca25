import { Coordinator } from "#coordinator/coordinator";
import type { CoordinatorOptions } from "#coordinator/options";
import { coordinatorOptions, EventRecorder } from "./cluster.js";

/** Of a test with a coordinator and workers: far longer than one takes on a busy machine. */
export const limit = { timeout: 240_000 };

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
  const { controlAddress: address, controlPort: port } = await coordinator.start();
  return { coordinator, recorder, address, port };
}
