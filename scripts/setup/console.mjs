// What a set-up says: one line a step, and for long downloads one line that grows on a terminal and a
// line every 20 % elsewhere.

const startedAt = performance.now();

/** Prints one line of the set-up's own voice. */
export function say(text) {
  process.stdout.write(`setup: ${text}\n`);
}

/** Prints a warning that nobody overlooks and that stops nothing. */
export function warn(text) {
  process.stderr.write(`setup: WARNING: ${text}\n`);
}

/** An error whose message is the whole story: the caller prints it without a stack and exits with 1. */
export class SetupError extends Error {}

/** Seconds since this process began, with one decimal. */
export function elapsedSeconds() {
  return ((performance.now() - startedAt) / 1000).toFixed(1);
}

/**
 * A progress line over a quantity that somebody else counts.
 *
 * @param {string} label what is going on
 * @param {number} totalBytes the whole, so that a share can be shown
 * @param {() => number} currentBytes asked four times a second
 * @returns {() => void} ends the line
 */
export function progressLine(label, totalBytes, currentBytes) {
  const isTerminal = process.stdout.isTTY === true;
  const megabytes = (bytes) => Math.round(bytes / 1e6);
  let announcedFifths = 0;
  if (!isTerminal) say(`${label} (${megabytes(totalBytes)} MB)`);
  const timer = setInterval(() => {
    const bytes = Math.min(currentBytes(), totalBytes);
    if (isTerminal) {
      const text = `setup: ${label} ${megabytes(bytes)} of ${megabytes(totalBytes)} MB`;
      process.stdout.write(`\r${text}\u001b[K`);
      return;
    }
    const fifths = Math.floor((5 * bytes) / totalBytes);
    if (fifths > announcedFifths && fifths < 5) {
      announcedFifths = fifths;
      say(`${label}: ${fifths * 20} %`);
    }
  }, 250);
  timer.unref();
  return () => {
    clearInterval(timer);
    if (isTerminal) process.stdout.write(`\rsetup: ${label} ${megabytes(totalBytes)} MB\u001b[K\n`);
  };
}
