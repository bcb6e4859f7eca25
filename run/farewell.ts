import type { FrontDoor } from "#coordinator/front-door";
import type { ResolvedConfig } from "#lib/config/index";

/** Workers that were started with the coordinator need this long to knock. */
const farewellMs = 10_000;

/**
 * Tells the workers that come that there is nothing left to do, for as long as some may be on their way.
 * Where any port may be the coordinator's nobody can have been told of it, and nobody is waited for.
 */
export async function turnWorkersAway(
  door: FrontDoor,
  runId: string,
  { listen, output_dir, workers }: Pick<ResolvedConfig, "listen" | "output_dir" | "workers">,
): Promise<void> {
  if (/:0+$/.test(listen)) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, farewellMs);
    const told = new Set<string>();
    const onTold = (worker: string): void => {
      told.add(worker);
      if (told.size < workers) return;
      clearTimeout(timer);
      setImmediate(resolve);
    };
    door.turnAway({ kind: "finished", runId, directory: output_dir, onTold });
  });
}
