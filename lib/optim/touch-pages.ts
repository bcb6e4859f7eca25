/** The smallest of the systems that Node runs on. */
const systemPageBytes = 4096;

/**
 * Takes the pages of a shared memory from the system, and changes no byte, whoever writes there meanwhile. The first
 * touch of a page costs far more than the arithmetic on it: pay before a step, not in it. A word a page: V8
 * fills shared memory a word at a time, which took as long again.
 */
export function touchPages(buffer: SharedArrayBuffer): void {
  const words = new Int32Array(buffer);
  for (let at = 0; at < words.length; at += systemPageBytes / 4) Atomics.or(words, at, 0);
}
