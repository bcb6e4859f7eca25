import type { Target } from "#tests/fuzz/target";

/** Everything that reads what others wrote or sent, by the first part of the targets' names. */
const groups: Readonly<Record<string, () => Promise<{ readonly targets: readonly Target[] }>>> = {
  weights: () => import("./weights.js"),
  models: () => import("./models.js"),
  adapters: () => import("./adapters.js"),
  checkpoints: () => import("./checkpoints.js"),
  data: () => import("./data.js"),
  jobs: () => import("./jobs.js"),
  events: () => import("./events.js"),
  queue: () => import("./queue.js"),
  wire: () => import("./wire.js"),
  sockets: () => import("./sockets.js"),
};

export async function allTargets(): Promise<readonly Target[]> {
  const loaded = await Promise.all(Object.values(groups).map((load) => load()));
  return loaded.flatMap(({ targets }) => targets);
}

/**
 * Loads what the target needs and no more. @param name of a target, or of a group for all of its targets
 * @throws RangeError for a name that none has
 */
export async function findTargets(name: string): Promise<readonly Target[]> {
  const [group = ""] = name.split("/");
  const { targets } = (await groups[group]?.()) ?? { targets: [] };
  const found = targets.filter((target) => target.name === name || group === name);
  if (found.length > 0) return found;
  const names = (await allTargets()).map((target) => target.name);
  throw new RangeError(`no target is called ${name}: there are ${names.join(", ")}`);
}
