import type { Target } from "../target.js";
import { adapterTargets } from "./adapters.js";
import { checkpointTargets } from "./checkpoints.js";
import { dataTargets } from "./data.js";
import { jobTargets } from "./jobs.js";
import { modelTargets } from "./models.js";
import { socketTargets } from "./sockets.js";
import { weightTargets } from "./weights.js";
import { wireTargets } from "./wire.js";

/** Everything that reads what others wrote or sent. */
export const targets: readonly Target[] = [
  ...weightTargets,
  ...modelTargets,
  ...adapterTargets,
  ...checkpointTargets,
  ...dataTargets,
  ...jobTargets,
  ...wireTargets,
  ...socketTargets,
];

/** @throws RangeError for a name that none has */
export function findTarget(name: string): Target {
  const found = targets.find((target) => target.name === name);
  if (found !== undefined) return found;
  throw new RangeError(
    `no target is called ${name}: ${targets.map((each) => each.name).join(", ")}`,
  );
}
