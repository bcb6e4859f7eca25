// Shows the progress display of a scripted run: `node dist/bench/display/replay.js [--json-logs|--plain] [--lose]`.
import { setTimeout as sleep } from "node:timers/promises";
import { chooseColor, chooseMode, startDisplay } from "#cli/progress/display";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { scriptedRun } from "./scripted-run.js";

const isTerminal = process.stdout.isTTY;
const bus = new InProcessEventBus();
const display = startDisplay(bus, {
  mode: chooseMode({
    isTerminal,
    jsonLogs: process.argv.includes("--json-logs"),
    plain: process.argv.includes("--plain"),
    term: process.env.TERM,
  }),
  stream: process.stdout,
  color: chooseColor(isTerminal, process.env),
  nowMs: () => performance.timeOrigin + performance.now(),
});
process.once("SIGINT", () =>
  display.setNotice("Stopping after this step; Ctrl-C again to exit now"),
);
const lose = process.argv.includes("--lose") ? { loseWorkerAtStep: 4 } : {};
for (const { afterMs, event } of scriptedRun(lose)) {
  // A blank timer would let the process end: the display's own is not a reason to stay.
  await sleep(afterMs);
  bus.publish(event);
}
display.close();
