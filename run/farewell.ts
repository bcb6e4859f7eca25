import type { FrontDoor } from "#coordinator/front-door";
import type { ResolvedConfig } from "#lib/config/index";
import type { RunResult } from "./run-handle.js";
import type { BegunRun } from "./start.js";

/** Workers that were started with the coordinator need this long to knock. */
const farewellMs = 10_000;

/** Ends a run that is finished. @param options.door at which its workers knock; absent: they are of this process */
export async function endFinished(
  finished: NonNullable<BegunRun["finished"]>,
  {
    config,
    door,
    note,
  }: {
    readonly config: ResolvedConfig;
    readonly door: FrontDoor | undefined;
    readonly note: (text: string) => void;
  },
): Promise<RunResult> {
  const { step, mastersSha256, runId } = finished;
  const { output_dir: directory } = config;
  note(nothingLeftLine(directory, finished));
  if (door !== undefined) await turnWorkersAway(door, runId, config);
  return { outcome: "finished", step, directory, mastersSha256, seconds: 0 };
}

/** What a person is told of a run that is finished. */
function nothingLeftLine(
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
async function turnWorkersAway(
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
