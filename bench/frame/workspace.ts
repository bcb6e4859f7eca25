import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";
import type { Command } from "./experiment.js";
import { peersCeiling, peersEnvironment, peersPython } from "./peers-python.js";
import { measure } from "./process.js";

/** A folder for one run of the table: seeded models and token files, written by the peer's side. */
export class Workspace {
  readonly #directory = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
  readonly #made = new Map<string, Promise<string>>();

  /** A script of bench/ in a fresh Node. @param script without its ending */
  ours(script: string, ...args: readonly string[]): Command {
    return {
      file: process.execPath,
      args: [join(packageRoot, `dist/bench/${script}.js`), ...args],
    };
  }

  /** A script of bench/peers in the peers' environment. @throws Error if that is not installed */
  peer(script: string, ...args: readonly string[]): Command {
    const python = peersPython();
    if (python === undefined) {
      throw new Error("the Python peers are not installed: node scripts/setup.mjs --python");
    }
    return {
      file: python,
      args: [join(packageRoot, `bench/peers/${script}.py`), ...args],
      env: { ...peersEnvironment, ...peersCeiling(), TOKENIZERS_PARALLELISM: "false" },
    };
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  /** A Hugging Face directory with seeded weights and what is learnt beside them; made once. */
  model(name: "gpt2" | "gpt2-lively" | "minilm"): Promise<string> {
    return this.once(name, (path) => this.peer("make_model", name, path));
  }

  /** What `command` makes at a path of the folder; made once. */
  once(name: string, command: (path: string) => Command): Promise<string> {
    let made = this.#made.get(name);
    if (made === undefined) {
      const path = this.path(name);
      made = measure(command(path)).then(() => path);
      this.#made.set(name, made);
    }
    return made;
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
