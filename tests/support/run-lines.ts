import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { ownChild } from "./children.js";

export interface LinesOutcome {
  readonly code: number | null;
  /** Standard output and standard error. */
  readonly text: string;
}

/** Runs a program to its end; `onLine` may act on it as it speaks. */
export function runLines(
  [name = "", ...args]: readonly string[],
  options: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
  onLine: (line: string, child: ChildProcess) => void = () => {},
): Promise<LinesOutcome> {
  const child = ownChild(
    spawn(name, args, {
      cwd: options.cwd,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
    }),
  );
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    text += `${line}\n`;
    onLine(line, child);
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, text })));
}
