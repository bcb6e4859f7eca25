import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { pathToFileURL } from "node:url";
import { packageRoot } from "#lib/core/paths";
import type { FileLock } from "#run/claim-files";
import type { JobFence } from "#run/job-fence";
import { descendantsOf } from "./processes.js";

/** As on a file system without locks. */
export const withoutLocks = (): FileLock => ({ state: "none", device: 0, release: () => {} });

const namespaces = {
  net: ["unshare", "--net"],
  pid: ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
  mount: ["unshare", "--mount"],
} as const;

/** What starts a program in a namespace of its own; undefined, and told, where none can be made. */
export function apart(
  t: Pick<TestContext, "skip">,
  namespace: keyof typeof namespaces,
): readonly string[] | undefined {
  const prefix = namespaces[namespace];
  try {
    execFileSync(prefix[0] as string, [...prefix.slice(1), "true"], { stdio: "pipe" });
    return prefix;
  } catch (error) {
    if (process.env["CI"] === "true") throw error;
    t.skip(`no ${namespace} namespace can be made here`);
    return undefined;
  }
}

interface OwnerOptions {
  /** Program and flags that start the owner's. */
  readonly prefix?: readonly string[];
  readonly withoutLocks?: boolean;
  readonly beatMs?: number;
  readonly silentMs?: number;
  readonly fence?: JobFence;
}

const moduleOf = (path: string): string =>
  JSON.stringify(pathToFileURL(join(packageRoot, "dist", path)).href);

/** Claims a directory, then saves what it is told to, and answers with "saved" or an error's code. */
const program = (
  output: string,
  { withoutLocks: isBare, beatMs, silentMs, fence }: OwnerOptions,
) => `
  import { createInterface } from "node:readline";
  import { writeFileSync } from "node:fs";
  const { claimOutputDirectory } = await import(${moduleOf("run/output-directory.js")});
  const { saveAtomically } = await import(${moduleOf("lib/checkpoint/index.js")});
  const say = (message) => process.stdout.write(JSON.stringify(message) + "\\n");
  const options = {
    beatMs: 50,
    ...${JSON.stringify({ beatMs, silentMs, fence })},
    onLost: (error) => say({ lost: error.code }),
  };
  if (${isBare === true}) options.tryLock = () => ({ state: "none", device: 0, release: () => {} });
  const output = ${JSON.stringify(output)};
  try {
    const { epoch } = await claimOutputDirectory(output, options);
    say({ epoch, pid: process.pid });
  } catch (error) {
    say({ refused: error.code ?? String(error) });
    process.exit(1);
  }
  let goOn = () => {};
  createInterface({ input: process.stdin }).on("line", async (line) => {
    const { save, slowly } = JSON.parse(line);
    if (save === undefined) return goOn();
    const write = async (temporary) => {
      writeFileSync(temporary + "/state", "the owner's");
      if (!slowly) return;
      await new Promise((resolve) => { goOn = resolve; say({ writing: save }); });
    };
    const answer = await saveAtomically(output + "/" + save, write).then(
      () => "saved",
      (error) => error.code ?? String(error),
    );
    say({ answer });
  }).on("close", () => process.exit());`;

type Message = Readonly<Record<string, unknown>>;

/** A process that has claimed an output directory. */
export class Owner {
  readonly epoch: number;
  readonly #child: ChildProcess;
  readonly #messages: Messages;
  readonly #isOfAnotherNamespace: boolean;

  private constructor(child: ChildProcess, messages: Messages, epoch: number, isApart: boolean) {
    this.#child = child;
    this.#messages = messages;
    this.epoch = epoch;
    this.#isOfAnotherNamespace = isApart;
  }

  /** @throws where the claim is refused */
  static async start(output: string, options: OwnerOptions = {}): Promise<Owner> {
    const { prefix = [] } = options;
    const command = [...prefix, process.execPath, "--input-type=module", "-e"];
    const child = spawn(command[0] as string, [...command.slice(1), program(output, options)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const messages = new Messages(child);
    const { epoch, refused } = await messages.next((each) => "epoch" in each || "refused" in each);
    if (refused !== undefined) throw new Error(typeof refused === "string" ? refused : "refused");
    return new Owner(child, messages, Number(epoch), prefix.includes("--pid"));
  }

  /** The code of the error with which a claim is refused. */
  static async refusal(output: string, options: OwnerOptions = {}): Promise<string> {
    const owner = await Owner.start(output, options).catch((error: Error) => error);
    if (owner instanceof Error) return owner.message;
    await owner.kill();
    throw new Error("the claim was not refused");
  }

  async save(name: string): Promise<unknown> {
    this.#send({ save: name });
    return (await this.#messages.next((each) => "answer" in each))["answer"];
  }

  /** Saves and stays in the middle of it until `goOn`. */
  async saveSlowly(name: string): Promise<unknown> {
    this.#send({ save: name, slowly: true });
    return (await this.#messages.next((each) => "answer" in each))["answer"];
  }

  async untilWriting(): Promise<void> {
    await this.#messages.next((each) => "writing" in each);
  }

  goOn(): void {
    this.#send({});
  }

  /** The code of the error with which it was told that the directory is not its own any more. */
  async lost(): Promise<unknown> {
    return (await this.#messages.next((each) => "lost" in each))["lost"];
  }

  signal(name: NodeJS.Signals): void {
    process.kill(this.#pid(), name);
  }

  async kill(): Promise<void> {
    const exit = once(this.#child, "exit");
    this.signal("SIGKILL");
    await exit;
  }

  /** In this process' namespace: that of the program which unshare starts. */
  #pid(): number {
    const pid = this.#child.pid as number;
    if (!this.#isOfAnotherNamespace) return pid;
    return descendantsOf(pid)[0] as number;
  }

  #send(message: Message): void {
    this.#child.stdin?.write(`${JSON.stringify(message)}\n`);
  }
}

/** Lines of JSON of a process, each taken once. */
class Messages {
  readonly #waiting: { readonly isIt: (message: Message) => boolean; readonly take: Take }[] = [];
  readonly #unread: Message[] = [];
  #isOver = false;

  constructor(child: ChildProcess) {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on("line", (line) => this.#receive(JSON.parse(line) as Message));
    lines.on("close", () => {
      this.#isOver = true;
      for (const { take } of this.#waiting.splice(0)) take.reject(new Error("the process ended"));
    });
  }

  async next(isIt: (message: Message) => boolean): Promise<Message> {
    const index = this.#unread.findIndex(isIt);
    if (index >= 0) return this.#unread.splice(index, 1)[0] as Message;
    if (this.#isOver) throw new Error("the process ended");
    return new Promise((resolve, reject) => {
      this.#waiting.push({ isIt, take: { resolve, reject } });
    });
  }

  #receive(message: Message): void {
    const index = this.#waiting.findIndex(({ isIt }) => isIt(message));
    if (index < 0) this.#unread.push(message);
    else this.#waiting.splice(index, 1)[0]?.take.resolve(message);
  }
}

interface Take {
  readonly resolve: (message: Message) => void;
  readonly reject: (error: Error) => void;
}
