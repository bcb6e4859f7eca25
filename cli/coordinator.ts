import { loadConfig, type ResolvedConfig } from "#lib/core/config/index";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { type ConsoleFlags, openConsole } from "./console.js";
import {
  findFinished,
  type FinishedRun,
  nothingLeftToDo,
  turnWorkersAway,
} from "./finished-run.js";
import { type HostedRun, publishFailure, splitAddress, startHost, wireSecurity } from "./host.js";
import type { Display } from "./progress/display.js";
import { listenForRunSignals } from "./run-signals.js";
import { exitCodes } from "./stop-signals.js";

/** Tells the person and the workers that nothing is left to do. */
async function tellFinished(
  config: ResolvedConfig,
  finished: FinishedRun,
  bus: InProcessEventBus,
  display: Display,
): Promise<number> {
  try {
    display.note(nothingLeftToDo(config, finished));
    const at = { ...splitAddress(config.listen), security: await wireSecurity(config) };
    await turnWorkersAway(config, at, bus);
    return 0;
  } finally {
    display.close();
  }
}

/** `lockstep coordinator`. Returns the exit code. */
export async function coordinatorCommand(
  args: readonly string[],
  flags: ConsoleFlags,
): Promise<number> {
  const loaded = await loadConfig(args);
  const bus = new InProcessEventBus();
  const display = openConsole(bus, loaded, flags);
  let hosted: HostedRun | undefined;
  const signals = listenForRunSignals({ config: loaded.config, display, hosted: () => hosted });
  const finished = await findFinished(loaded.config);
  if (finished !== undefined) {
    signals.remove();
    return tellFinished(loaded.config, finished, bus, display);
  }
  const host = await startHost(loaded.config, bus).catch((error: unknown) => {
    display.close();
    throw error;
  });
  try {
    if (host.httpAddress !== undefined) {
      display.note(`Dashboard ${host.httpAddress}/  metrics ${host.httpAddress}/metrics`);
    }
    const controlAddress = await host.listen();
    display.note(`Workers join with: lockstep worker --coordinator ${controlAddress}`);
    hosted = await host.open();
    const outcome = await hosted.run();
    return outcome.outcome === "finished" ? 0 : exitCodes[signals.received() ?? "SIGTERM"];
  } catch (error) {
    publishFailure(bus, error);
    throw error;
  } finally {
    signals.remove();
    display.close();
    await host.close();
  }
}
