import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { packageRoot } from "#lib/core/paths";

interface OwnReducer {
  readonly address: string;
  /** Lines that it printed. */
  readonly lines: readonly string[];
  readonly child: ChildProcess;
  /** @returns its exit code */
  readonly exited: Promise<number | null>;
}

/** Starts `lockstep reducer` in a process of its own, which ends with the test at the latest. */
export async function startOwnReducer(
  t: Pick<TestContext, "after">,
  {
    prefix = [],
    environment = process.env,
  }: {
    /** Program and flags that start it. */
    readonly prefix?: readonly string[];
    readonly environment?: NodeJS.ProcessEnv;
  } = {},
): Promise<OwnReducer> {
  const [program = "", ...args] = [
    ...prefix,
    ...[process.execPath, join(packageRoot, "bin/lockstep"), "reducer"],
    ...["--listen", "127.0.0.1:0", "--metrics-port", "null"],
  ];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  t.after(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const lines: string[] = [];
  const address = await new Promise<string>((resolve, reject) => {
    void exited.then((code) => reject(new Error(`ended with ${code}: ${lines.join("\n")}`)));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        lines.push(line);
        const [, listens] = /listens at (\S+) for/.exec(line) ?? [];
        if (listens !== undefined) resolve(listens);
      });
    }
  });
  return { address, lines, child, exited };
}
