import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NatsSettings } from "#lib/wire/nats/connection";
import { freePorts } from "./ports.js";
import { toolPath } from "./tools.js";

/** Servers answer no event when they are ready; they are asked. */
const pollMs = 50;
const startTimeoutMs = 30_000;

interface NatsServerOptions {
  /** Of one cluster. @default 1 */
  readonly count?: number;
  /** Added to each server's configuration, in its own language. */
  readonly config?: string;
  /** A file of configuration that each server includes. */
  readonly include?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** One real nats-server with JetStream, on loopback. */
class NatsServer {
  readonly name: string;
  readonly port: number;
  readonly #monitorPort: number;
  readonly #configFile: string;
  readonly #env: Readonly<Record<string, string>>;
  #child: ChildProcess | undefined;
  #log = "";

  constructor(
    name: string,
    ports: { readonly client: number; readonly monitor: number },
    configFile: string,
    env: Readonly<Record<string, string>>,
  ) {
    this.name = name;
    this.port = ports.client;
    this.#monitorPort = ports.monitor;
    this.#configFile = configFile;
    this.#env = env;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts it, or starts it again with what it had stored. */
  async start(): Promise<void> {
    const child = spawn(toolPath("natsServer"), ["-c", this.#configFile], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...this.#env },
    });
    this.#child = child;
    child.stderr.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-20_000);
    });
  }

  /** Resolves once streams can be used. */
  async untilReady(): Promise<void> {
    const deadline = performance.now() + startTimeoutMs;
    for (;;) {
      const url = `http://127.0.0.1:${this.#monitorPort}/healthz`;
      const answer = await fetch(url).catch(() => null);
      if (answer?.ok === true) return;
      if (this.#child?.exitCode !== null || performance.now() > deadline) {
        throw new Error(`nats-server ${this.name} did not become ready:\n${this.#log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** What its monitoring says: "jsz?streams=1". */
  async monitor(path: string): Promise<unknown> {
    return (await fetch(`http://127.0.0.1:${this.#monitorPort}/${path}`)).json();
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** @param signal SIGKILL: as a crash */
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}

/** Servers of one test, with the settings that lead to them. */
interface NatsServers {
  readonly servers: readonly NatsServer[];
  readonly settings: NatsSettings;
  close(): Promise<void>;
}

/** Starts a server, or a cluster of them. */
export async function startNats(options: NatsServerOptions = {}): Promise<NatsServers> {
  const count = options.count ?? 1;
  const directory = await mkdtemp(join(tmpdir(), "lockstep-nats-"));
  const port = await freePorts(3 * count);
  const routes = Array.from(
    { length: count },
    (_, index) => `nats://127.0.0.1:${port + 3 * index + 2}`,
  );
  const servers: NatsServer[] = [];
  // It is looked for beside the file that includes it.
  if (options.include !== undefined) {
    await copyFile(options.include, join(directory, "included.conf"));
  }
  for (let index = 0; index < count; index++) {
    const [client, monitor, route] = [0, 1, 2].map((offset) => port + 3 * index + offset);
    const name = `n${index + 1}`;
    const store = join(directory, name);
    await mkdir(store);
    const cluster =
      count === 1
        ? ""
        : `cluster { name: test, listen: "127.0.0.1:${route}", routes: ${JSON.stringify(routes)} }`;
    const configFile = join(directory, `${name}.conf`);
    await writeFile(
      configFile,
      [
        ...(options.include === undefined ? [] : ["include included.conf"]),
        `server_name: ${name}`,
        `listen: "127.0.0.1:${client}"`,
        `http: "127.0.0.1:${monitor}"`,
        `jetstream { store_dir: ${JSON.stringify(store)}, max_memory_store: 64MB, max_file_store: 1GB }`,
        cluster,
        options.config ?? "",
        "",
      ].join("\n"),
    );
    const ports = { client: client ?? 0, monitor: monitor ?? 0 };
    servers.push(new NatsServer(name, ports, configFile, options.env ?? {}));
  }
  const close = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.stop()));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await Promise.all(servers.map((server) => server.start()));
    await Promise.all(servers.map((server) => server.untilReady()));
  } catch (error) {
    await close();
    throw error;
  }
  const url = servers.map(({ port: client }) => `nats://127.0.0.1:${client}`).join(",");
  return { servers, settings: natsSettings(url), close };
}

/** Settings of an address alone. */
export const natsSettings = (url: string, others: Partial<NatsSettings> = {}): NatsSettings => ({
  url,
  credentialsFile: null,
  tokenFile: null,
  tlsCaFile: null,
  tlsCertFile: null,
  tlsKeyFile: null,
  insecure: false,
  ...others,
});
