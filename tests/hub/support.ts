import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { type HubSettings, hubSettings } from "#lib/hub/index";
import { packageRoot } from "#lib/core/paths";
import { HubServer } from "#tests/support/hub-server";

export interface HubCase {
  readonly server: HubServer;
  readonly directory: string;
  readonly settings: HubSettings;
}

/** A server and an empty cache, both gone after the test. */
export async function startHub(
  t: TestContext,
  env: Readonly<Record<string, string>> = {},
): Promise<HubCase> {
  const server = await HubServer.start();
  const directory = await mkdtemp(join(tmpdir(), "lockstep-hub-"));
  t.after(async () => {
    await server.close();
    await rm(directory, { recursive: true, force: true });
  });
  const environment = { HF_ENDPOINT: server.endpoint, HF_HOME: directory, ...env };
  const settings = { ...hubSettings(environment), retryPauseMs: 1 };
  return { server, directory, settings };
}

/** An address at which nobody listens. */
export async function closedEndpoint(): Promise<string> {
  const server = await HubServer.start();
  const { endpoint } = server;
  await server.close();
  return endpoint;
}

const tinyFiles = ["config.json", "generation_config.json", "model.safetensors"];

/** The tiny Llama as a repository: its files, a tokenizer, and what other programs keep beside them. */
export async function tinyRepository(): Promise<Record<string, Buffer>> {
  const llama = join(packageRoot, "tests/fixtures/tiny-llama");
  const tokenizer = join(packageRoot, "tests/fixtures/tok");
  const files: Record<string, Buffer> = {
    "README.md": Buffer.from("# Tiny\n"),
    ".gitattributes": Buffer.from("*.safetensors filter=lfs\n"),
    "pytorch_model.bin": Buffer.alloc(5000, 1),
    "model.gguf": Buffer.alloc(5000, 2),
    "tf_model.h5": Buffer.alloc(5000, 3),
  };
  for (const name of tinyFiles) files[name] = await readFile(join(llama, name));
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    files[name] = await readFile(join(tokenizer, name));
  }
  return files;
}

/** Code and message of what an action throws. */
export async function failure(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (isLockstepError(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error("nothing was thrown");
}
