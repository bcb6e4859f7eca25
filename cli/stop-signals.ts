/** Exit codes of a program that a signal ended: 128 plus the signal's number. */
export const exitCodes = Object.freeze({ SIGINT: 130, SIGTERM: 143 });
export type StopSignal = keyof typeof exitCodes;

/**
 * The first SIGINT or SIGTERM asks for an orderly end, the second exits at once.
 *
 * @param onFirst false when there is nothing to finish: the program exits at once
 * @param onSecond last steps before the exit; must not wait
 */
export function onStopSignals(
  onFirst: (signal: StopSignal) => boolean,
  onSecond: () => void,
): { readonly received: () => StopSignal | undefined; readonly remove: () => void } {
  let received: StopSignal | undefined;
  const handle = (signal: StopSignal): void => {
    const isFirst = received === undefined;
    received ??= signal;
    if (isFirst && onFirst(signal)) return;
    onSecond();
    process.exit(exitCodes[signal]);
  };
  const onInt = (): void => handle("SIGINT");
  const onTerm = (): void => handle("SIGTERM");
  process.on("SIGINT", onInt);
  process.on("SIGTERM", onTerm);
  return {
    received: () => received,
    remove: () => {
      process.off("SIGINT", onInt);
      process.off("SIGTERM", onTerm);
    },
  };
}
