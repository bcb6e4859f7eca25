// What has to go when the set-up ends early. `kill -9` skips all of it; then the next set-up clears up.

/** @type {Set<() => void>} in the order of registration */
const duties = new Set();

process.on("exit", () => {
  // The last one first: a child process before the directory it writes to.
  for (const duty of [...duties].reverse()) duty();
});
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));

/**
 * Registers a synchronous duty for the end of the process.
 *
 * @param {() => void} duty
 * @returns {() => void} takes it off the list
 */
export function atExit(duty) {
  duties.add(duty);
  return () => duties.delete(duty);
}
