import { loadConfig } from "#lib/core/config/index";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { type ConsoleFlags, openConsole } from "./console.js";
import { type HostedRun, publishFailure, startHost } from "./host.js";
import { exitCodes, onStopSignals } from "./stop-signals.js";

/** `lockstep coordinator`. Returns the exit code. */
export async function coordinatorCommand(
  args: readonly string[],
  flags: ConsoleFlags,
): Promise<number> {
  const loaded = await loadConfig(args);
  const bus = new InProcessEventBus();
  const display = openConsole(bus, loaded, flags);
  let hosted: HostedRun | undefined;
  const signals = onStopSignals(
    () => {
      if (hosted === undefined) return false;
      display.setNotice("Stopping after this step, then saving; a second signal exits at once");
      hosted.coordinator.requestStop();
      return true;
    },
    () => display.close(),
  );
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
