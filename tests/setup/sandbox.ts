// A small world for set-up tests: a wheel of a few bytes, a pip that only copies it, a compiler that builds an
// empty addon. Both note each call, and pip can be made to stop in the middle.

import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";

const WHEEL_FILE = "tiny_engine-1.0.0-py3-none-any.whl";

/** Passes everything but `pip download` to the real Python. With a pipe to announce itself on, it then waits to be killed. */
const FAKE_PYTHON = `#!/bin/sh
if [ "$1 $2 $3" != "-m pip download" ]; then exec "$REAL_PYTHON" "$@"; fi
echo pip >> "$CALLS"
while [ "$1" != "--dest" ]; do shift; done
if [ -n "$STALL_PIPE" ]; then
  head -c 100 "$WHEEL" > "$2/partly"
  echo $$ > "$STALL_PIPE"
  exec sleep 600
fi
cp "$WHEEL" "$2/"
`;

const FAKE_COMPILER = `#!/bin/sh
echo compiler >> "$CALLS"
while [ "$1" != "-o" ]; do shift; done
echo 'void* napi_register_module_v1(void* env, void* exports) { return exports; }' | cc -shared -fPIC -x c - -o "$2"
`;

const PACK_WHEEL = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("tensorflow/libtensorflow_cc.so.2", "library")
    wheel.writestr("tensorflow/unwanted.py", "raise SystemExit")
`;

/** How one run of the installer ended. */
interface Outcome {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  output: string;
}

/** One temporary directory with all that `installEngine` touches. */
export class Sandbox {
  readonly directory: string = mkdtempSync(join(tmpdir(), "lockstep-setup-"));
  readonly cacheDir: string = join(this.directory, "cache");
  readonly wheelSha256: string;
  readonly #environment: NodeJS.ProcessEnv;

  constructor() {
    const bin = join(this.directory, "bin");
    const wheel = join(this.directory, WHEEL_FILE);
    mkdirSync(bin);
    writeFileSync(join(bin, "python3"), FAKE_PYTHON, { mode: 0o755 });
    writeFileSync(join(bin, "g++"), FAKE_COMPILER, { mode: 0o755 });
    execFileSync("python3", ["-c", PACK_WHEEL, wheel]);
    this.wheelSha256 = createHash("sha256").update(readFileSync(wheel)).digest("hex");
    this.#environment = {
      ...process.env,
      PATH: `${bin}:${process.env["PATH"]}`,
      CXX: "",
      CALLS: join(this.directory, "calls"),
      WHEEL: wheel,
      REAL_PYTHON: execFileSync("sh", ["-c", "command -v python3"], { encoding: "utf8" }).trim(),
    };
  }

  /** Starts an installation in a process of its own. */
  install(options: { sha256?: string; stallPipe?: string } = {}): {
    kill(signal: NodeJS.Signals): void;
    ended: Promise<Outcome>;
  } {
    const spec = {
      flavour: "cpu",
      tensorflowVersion: "0",
      addonVersion: "0",
      addonIntegrity: "none",
      wheels: [
        {
          requirement: "tiny-engine==1.0.0",
          file: WHEEL_FILE,
          sha256: options.sha256 ?? this.wheelSha256,
          bytes: 300,
          members: ["tensorflow/libtensorflow_cc"],
        },
      ],
    };
    const module = join(packageRoot, "scripts", "setup", "engine.mjs");
    const script = `
      const { installEngine } = await import(process.argv[1]);
      const sources = () => ({ addonDir: process.argv[4], headersDir: process.argv[4] });
      await installEngine(process.argv[2], JSON.parse(process.argv[3]), sources);`;
    const child = spawn(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        script,
        module,
        this.cacheDir,
        JSON.stringify(spec),
        this.directory,
      ],
      {
        env: { ...this.#environment, STALL_PIPE: options.stallPipe ?? "" },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
    const ended = new Promise<Outcome>((resolve, reject) => {
      child.on("error", reject);
      // Not "close": a killed installer's pip still holds the pipes.
      child.on("exit", (exitCode, signal) => {
        setImmediate(() => {
          child.stdout.destroy();
          child.stderr.destroy();
          resolve({ exitCode, signal, output });
        });
      });
    });
    return { kill: (signal) => void child.kill(signal), ended };
  }

  /** A named pipe, for `stallPipe`. */
  makePipe(): string {
    const path = join(this.directory, "pipe");
    execFileSync("mkfifo", [path]);
    return path;
  }

  /** How often a program was called: "pip" or "compiler". */
  numCalls(program: string): number {
    const path = join(this.directory, "calls");
    if (!existsSync(path)) return 0;
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line === program).length;
  }

  /** What lies in the cache's engine directory. */
  engineEntries(): string[] {
    const path = join(this.cacheDir, "engine");
    return existsSync(path) ? readdirSync(path).sort() : [];
  }

  /** All files of the one installed engine. */
  engineFiles(): string[] {
    const [name, ...others] = this.engineEntries();
    if (name === undefined || others.length > 0)
      throw new Error(`not one engine: ${others.join()}`);
    return readdirSync(join(this.cacheDir, "engine", name), {
      recursive: true,
      encoding: "utf8",
    }).sort();
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
