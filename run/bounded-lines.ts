import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";

/**
 * Lines of what a process writes, each cut after so many characters: what follows up to its end is let go, so that no more
 * is kept of a line that never ends.
 */
export async function* boundedLines(
  stream: Readable,
  maxChars: number,
): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const parts = decoder.write(chunk).split("\n");
    for (const [index, part] of parts.entries()) {
      if (rest.length < maxChars) rest += part.slice(0, maxChars - rest.length);
      if (index === parts.length - 1) break;
      yield rest.replace(/\r$/, "");
      rest = "";
    }
  }
  if (rest !== "") yield rest;
}
