import { ignoresHangup } from "./hangup.js";

/** Exit codes of a program that a signal ended: 128 plus the signal's number. */
export const exitCodes = Object.freeze({
  SIGHUP: 129,
  SIGINT: 130,
  SIGQUIT: 131,
  SIGUSR1: 138,
  SIGUSR2: 140,
  SIGTERM: 143,
  SIGXCPU: 152,
});
export type StopSignal = keyof typeof exitCodes;
/** Those that batch systems announce the end of a job with, minutes before it. */
export const userSignals = ["SIGUSR1", "SIGUSR2"] as const;
type UserSignal = (typeof userSignals)[number];
/** SIGXCPU comes at a soft limit of CPU time, then every second. */
export const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU"] as const;

/**
 * What comes this soon after the first signal is the same request: `timeout` and npm signal a program and
 * then its group, and a terminal that closes sends SIGHUP from the kernel and from its shell.
 */
const sameRequestMs = 500;

interface SignalActions {
  /** @returns false when there is nothing to finish: the program exits at once */
  readonly onFirst: (signal: StopSignal) => boolean;
  /** Last steps before an exit; must not wait. */
  readonly onSecond: () => void;
  /** @returns whether it was dealt with; otherwise it asks for an orderly end, as the others do */
  readonly onUserSignal: (signal: UserSignal) => boolean;
}

const isUserSignal = (signal: StopSignal | undefined): boolean =>
  signal === "SIGUSR1" || signal === "SIGUSR2";

/**
 * The first SIGINT, SIGTERM, SIGHUP, SIGQUIT or SIGXCPU asks for an orderly end, the second exits at once. A terminal
 * that closes after Ctrl-C is no second one, nor is the SIGTERM that SIGUSR1 announced; and `nohup` keeps what
 * it promises.
 */
export function onStopSignals({ onFirst, onSecond, onUserSignal }: SignalActions): {
  readonly received: () => StopSignal | undefined;
  readonly remove: () => void;
} {
  let received: StopSignal | undefined;
  let receivedAtMs = 0;
  const isIgnored = ignoresHangup();
  const hastens = (signal: StopSignal): boolean => {
    if (performance.now() - receivedAtMs < sameRequestMs) return false;
    if (isUserSignal(signal) || signal === "SIGXCPU") return false;
    return signal !== "SIGHUP" || received === "SIGHUP";
  };
  const handle = (signal: StopSignal): void => {
    const isFirst = received === undefined;
    if (isFirst || (isUserSignal(received) && !isUserSignal(signal))) {
      received = signal;
      receivedAtMs = performance.now();
      if (!isFirst || onFirst(signal)) return;
    } else if (!hastens(signal)) return;
    onSecond();
    process.exit(exitCodes[signal]);
  };
  const listeners = new Map<NodeJS.Signals, () => void>();
  for (const signal of stopSignals) {
    listeners.set(signal, signal === "SIGHUP" && isIgnored ? () => {} : () => handle(signal));
  }
  for (const signal of userSignals) {
    listeners.set(signal, () => {
      if (!onUserSignal(signal)) handle(signal);
    });
  }
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return {
    received: () => received,
    remove: () => {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}

/** Whether a run of this machine started this process, and ends it through their channel. */
export function isSupervised(): boolean {
  return (
    process.channel !== undefined && process.env["LOCKSTEP_SUPERVISOR"] === String(process.ppid)
  );
}
