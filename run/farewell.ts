import type { FrontDoor } from "#coordinator/front-door";
import type { ResolvedConfig } from "#lib/config/index";

/** Workers that were started with the coordinator need this long to knock. */
const farewellMs = 10_000;

/** What a person is told of a run that is finished. */
export function nothingLeftLine(
  directory: string,
  { step, totalSteps }: { readonly step: number; readonly totalSteps: number },
): string {
  const where =
    step < totalSteps
      ? `, where it stopped early; it goes on to step ${totalSteps} with a larger early_stopping_patience`
      : "";
  return `Nothing is left to do: ${directory} holds the result of this run after ${step} steps${where}`;
}

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
