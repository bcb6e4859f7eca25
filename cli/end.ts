/** What a command leaves open may keep its process this long; the command's result is saved by then. */
const maxLingerMs = 10_000;

/**
 * Ends the process soon after its command: at once where nothing is open any more, and otherwise in 10 s, naming what
 * is. `process.exitCode` stays.
 */
export function endSoon(): void {
  const timer = setTimeout(() => {
    const held = [...new Set(process.getActiveResourcesInfo())].join(", ");
    process.stderr.write(`lockstep: the command is done, and ${held} did not end; exiting\n`);
    process.exit();
  }, maxLingerMs);
  // The timer alone must not keep the process either.
  timer.unref();
}

/**
 * Who reads the output may go away (`| head`, a `tee` that dies), and a disk that it goes to may be full: a run is
 * worth more than its display. What is not somebody's choice is told once, on standard error.
 */
export function goOnWithoutOutput(): void {
  let isTold = false;
  process.stdout.on("error", ({ code = "", message }: NodeJS.ErrnoException) => {
    if (code === "EPIPE" || isTold) return;
    isTold = true;
    process.stderr.write(`lockstep: output is lost, and the command goes on: ${message}\n`);
  });
  process.stderr.on("error", () => {});
}
