"use strict";

/**
 * Listens for signals before anything that takes time is loaded, so that none of them does what Node does
 * where nobody listens: SIGUSR1 opens a debugger that every user of the machine can attach to, SIGUSR2 ends
 * the process. A worker that a run of this machine started leaves every signal to that run.
 */
exports.listenEarly = () => {
  const isSupervised =
    process.channel !== undefined && process.env.LOCKSTEP_SUPERVISOR === String(process.ppid);
  const stops = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU"];
  for (const signal of ["SIGUSR1", "SIGUSR2", ...(isSupervised ? stops : [])]) {
    process.on(signal, () => {});
  }
};
