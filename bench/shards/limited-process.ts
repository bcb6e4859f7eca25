import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";

const version1 = "/sys/fs/cgroup/memory";
const version2 = "/sys/fs/cgroup";
const pollMs = 50;

/** A group of control whose processes are ended by the kernel beyond a limit; undefined where none can be made. */
function limitedGroup(name: string, limitBytes: number): string | undefined {
  const isSecond = existsSync(join(version2, "cgroup.controllers"));
  const group = join(isSecond ? version2 : version1, `lockstep-${process.pid}-${name}`);
  try {
    mkdirSync(group);
    writeFileSync(
      join(group, isSecond ? "memory.max" : "memory.limit_in_bytes"),
      String(limitBytes),
    );
    return group;
  } catch {
    return undefined;
  }
}

/** `lockstep ARGS` in a group of its own with a limit of memory. */
export class LimitedProcess {
  readonly name: string;
  readonly limitBytes: number;
  /** Whether the kernel keeps it to the limit. */
  readonly isLimited: boolean;
  readonly exited: Promise<number | null>;
  output = "";
  peakBytes = 0;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  readonly #timer: NodeJS.Timeout;

  constructor(name: string, limitBytes: number, args: readonly string[]) {
    this.name = name;
    this.limitBytes = limitBytes;
    const group = limitedGroup(name, limitBytes);
    this.isLimited = group !== undefined;
    const command = [process.execPath, join(packageRoot, "bin/lockstep"), ...args];
    const [program = "", ...rest] =
      group === undefined
        ? command
        : ["sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, group, ...command];
    this.#child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on("data", (data: Buffer) => {
        this.output += data.toString();
        for (const look of this.#waiting) look();
      });
    }
    this.#timer = setInterval(() => this.#look(), pollMs);
    this.exited = new Promise((resolve) => {
      this.#child.once("close", (code) => {
        clearInterval(this.#timer);
        for (const look of this.#waiting) look();
        if (group !== undefined) rmdirSync(group);
        resolve(code);
      });
    });
  }

  /** Resolves with the first match in what it says. @throws Error where it ends without one */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = pattern.exec(this.output);
        if (found === null && this.#child.exitCode === null) return;
        this.#waiting.delete(look);
        if (found !== null) resolve(found);
        else reject(new Error(`${this.name} ended: ${this.output.slice(-2_000)}`));
      };
      this.#waiting.add(look);
      look();
    });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** The kernel's own high-water mark. */
  #look(): void {
    try {
      const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
      const kib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
      this.peakBytes = Math.max(this.peakBytes, kib * 1024);
    } catch {
      // It has just ended.
    }
  }
}
