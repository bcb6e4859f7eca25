import { printable } from "#lib/core/terminal-text";
import { onStopSignals } from "./stop-signals.js";

/** Writes into a directory of its own, and where a signal ends the program amid it, says what is left. */
export async function undoneBySignals<T>(directory: string, write: () => Promise<T>): Promise<T> {
  const signals = onStopSignals({
    // What is half written goes as the process exits.
    onFirst: () => false,
    onSecond: () => {
      process.stderr.write(`\nStopped: nothing was written into ${printable(directory)}.\n`);
    },
    // The command says itself that these are ignored.
    onUserSignal: () => true,
  });
  try {
    return await write();
  } finally {
    signals.remove();
  }
}
