import { spawn } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";
import { toolPath } from "#tests/support/tools";

export interface LlamaCppRequest {
  /** A GGUF file. */
  readonly file: string;
  readonly prompt: readonly number[];
  readonly numTokens: number;
  /** Texts that are tokenized without tokens around them, and such with special tokens in them. */
  readonly texts: readonly string[];
  readonly specialTexts: readonly string[];
}

export interface LlamaCppAnswer {
  /** The greedy continuation of the prompt. */
  readonly continuation: readonly number[];
  readonly tokens: readonly (readonly number[])[];
  readonly specialTokens: readonly (readonly number[])[];
  /** Of the first three ids, those that end a text. */
  readonly endTokens: readonly number[];
  readonly addsBos: boolean;
  readonly chatTemplate: string | null;
}

/** What llama.cpp does with GGUF files, in a process of its own. @throws with all it printed if it fails */
export async function askLlamaCpp(requests: readonly LlamaCppRequest[]): Promise<LlamaCppAnswer[]> {
  const program = join(packageRoot, "dist/tests/support/llama-cpp-program.js");
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin.end(JSON.stringify({ module: toolPath("llamaCpp"), requests }));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code === 0) return JSON.parse(stdout) as LlamaCppAnswer[];
  throw new Error(`llama.cpp ended with ${code}:\n${stdout}${stderr}`);
}
