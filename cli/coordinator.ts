import { loadConfig } from "#lib/config/index";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { type ConsoleFlags, openConsole } from "./console.js";
import { type HostedRun, publishFailure, startHost } from "#run/host";
import { listenForRunSignals } from "./run-signals.js";
import { exitCodes } from "./stop-signals.js";

/** `lockstep coordinator`. Returns the exit code. */
export async function coordinatorCommand(
  args: readonly string[],
  flags: ConsoleFlags,
): Promise<number> {
  const loaded = await loadConfig(args, "coordinator");
  const bus = new InProcessEventBus();
  const display = openConsole(bus, loaded, flags);
  let hosted: HostedRun | undefined;
  const signals = listenForRunSignals({ config: loaded.config, display, hosted: () => hosted });
  const host = await startHost(loaded.config, bus).catch((error: unknown) => {
    display.close();
    throw error;
  });
  try {
    if (host.httpAddress !== undefined) {
      display.note(`Dashboard ${host.httpAddress}/  metrics ${host.httpAddress}/metrics`);
    }
    const controlAddress = await host.listen();
    const nothingLeft = await host.nothingLeft();
    if (nothingLeft !== undefined) {
      display.note(nothingLeft);
      await host.turnWorkersAway();
      return 0;
    }
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
