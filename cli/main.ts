import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { isReplaced } from "#lib/core/errors/replaced";
import { explainSystemError } from "#lib/core/system-error";
import { packageVersion } from "#lib/core/process-metrics";
import { type ConsoleFlags, printError, takeConsoleFlags } from "./console.js";
import { endSoon, goOnWithoutOutput } from "./end.js";
import { ignoresHangup } from "./hangup.js";
import { userSignals } from "./stop-signals.js";
import { type CommandName, usages } from "./usage.js";

type Run = (args: string[], flags: ConsoleFlags) => Promise<number>;

interface Command {
  readonly summary: string;
  readonly load: () => Promise<Run>;
}

// A command's modules are loaded when it runs: the coordinator never sees those of the engine.
const commands: Readonly<Record<CommandName, Command>> = {
  train: {
    summary: "CONFIG.yaml: train on this machine with several workers",
    load: async () => (await import("./train.js")).trainCommand,
  },
  "train-local": {
    summary: "CONFIG.yaml: the same run in one process, without a cluster",
    load: async () => (await import("./train-local.js")).trainLocalCommand,
  },
  coordinator: {
    summary: "CONFIG.yaml: host a run for workers elsewhere",
    load: async () => (await import("./coordinator.js")).coordinatorCommand,
  },
  worker: {
    summary: "--coordinator HOST:PORT: compute for a run",
    load: async () => (await import("./worker.js")).workerCommand,
  },
  submit: {
    summary: "CONFIG.yaml ...: queue runs for agents",
    load: async () => (await import("./submit.js")).submitCommand,
  },
  list: {
    summary: "show the jobs of a queue",
    load: async () => (await import("./list.js")).listCommand,
  },
  cancel: {
    summary: "ID ...: stop jobs of a queue for good",
    load: async () => (await import("./job-commands.js")).cancelCommand,
  },
  pause: {
    summary: "ID ...: stop jobs with a checkpoint; they keep their places",
    load: async () => (await import("./job-commands.js")).pauseCommand,
  },
  resume: {
    summary: "ID ...: queue jobs again that are over",
    load: async () => (await import("./job-commands.js")).resumeCommand,
  },
  checkpoint: {
    summary: "ID ...: let running jobs save a checkpoint and go on",
    load: async () => (await import("./job-commands.js")).checkpointCommand,
  },
  agent: {
    summary: "run the jobs of a queue on this machine, one after another",
    load: async () => (await import("./agent.js")).agentCommand,
  },
  logs: {
    summary: "[RUN]: what a run of another machine and its workers said; --follow goes on",
    load: async () => (await import("./logs.js")).logsCommand,
  },
  control: {
    summary: "RUN ACTION: pause, resume, checkpoint or stop a run of another machine",
    load: async () => (await import("./control.js")).controlCommand,
  },
  watch: {
    summary: "[RUN]: show a run of another machine as it goes, from its start",
    load: async () => (await import("./watch.js")).watchCommand,
  },
  reducer: {
    summary: "--listen HOST:PORT: keep a part of a run's weights and optimizer state",
    load: async () => (await import("./reducer.js")).reducerCommand,
  },
  "import-gguf": {
    summary: "FILE DIR: turn a GGUF file into a Hugging Face directory",
    load: async () => (await import("./import-gguf.js")).importGgufCommand,
  },
  "merge-adapter": {
    summary: "ADAPTER_DIR OUT_DIR: add a LoRA adapter into its base model",
    load: async () => (await import("./merge-adapter.js")).mergeAdapterCommand,
  },
  export: {
    summary: "MODEL --output-dir DIR: write a model, or an adapter merged into its base",
    load: async () => (await import("./export.js")).exportCommand,
  },
  push: {
    summary: "DIR ID: upload a finished run's directory to the Hugging Face Hub",
    load: async () => (await import("./push.js")).pushCommand,
  },
  generate: {
    summary: "MODEL --prompt TEXT: continue a text with a model",
    load: async () => (await import("./generate.js")).generateCommand,
  },
  classify: {
    summary: "MODEL --text TEXT: the classes of a text with their probabilities",
    load: async () => (await import("./classify.js")).classifyCommand,
  },
  "verify-model": {
    summary: "DIR: compare a model's numbers with those of transformers",
    load: async () => (await import("./verify-model.js")).verifyModelCommand,
  },
  recipes: {
    summary: "list configurations to begin with; copy NAME FILE hands one over",
    load: async () => (await import("./recipes.js")).recipesCommand,
  },
  data: {
    summary: "preview CONFIG.yaml: show rows as they are learnt",
    load: async () => (await import("./data.js")).dataCommand,
  },
  device: {
    summary: "show what this machine computes on, and how fast",
    load: async () => (await import("./device.js")).deviceCommand,
  },
  config: {
    summary: "CONFIG.yaml: print the resolved configuration; --keys lists all keys",
    load: async () => (await import("./config.js")).configCommand,
  },
};

const usage = `lockstep ${packageVersion}: fine-tunes language models on a cluster

Usage: lockstep COMMAND ...

${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(13)} ${summary}`)
  .join("\n")}
  setup         bring the engine, and with --model a model

lockstep COMMAND --help tells more.
`;

/** Commands whose options are keys of a configuration, which they read themselves. */
const configCommands: ReadonlySet<string> = new Set([
  ...["train", "train-local", "coordinator", "config", "worker", "data"],
]);

/** Commands that load the engine and whose result is on standard output. */
const textCommands: ReadonlySet<string> = new Set([
  ...["generate", "classify", "verify-model", "export", "merge-adapter"],
]);

/** Commands that have something to do when SIGUSR1 or SIGUSR2 comes, or say that it is another's. */
const savingCommands: ReadonlySet<CommandName> = new Set([
  ...(["train", "coordinator", "worker", "reducer"] as const),
]);

function ignoreUserSignals(command: CommandName): void {
  for (const signal of userSignals) {
    process.on(signal, () => {
      process.stderr.write(`${signal} is ignored: lockstep ${command} saves nothing on its way\n`);
    });
  }
}

/** `--max_new_tokens`, as Python's programs write it, with dashes. */
const dashed = (argument: string): string =>
  argument.replace(/^--[a-z][\w-]*/, (option) => option.replaceAll("_", "-"));

/** Exit code of a command line that could not be read, as most programs have it. */
const usageExitCode = 2;

/** Another process has the run: EX_PROTOCOL of sysexits.h. */
const replacedExitCode = 76;

const exitCodeOf = (error: LockstepError): number => {
  if (error.code === "E_USAGE") return usageExitCode;
  return isReplaced(error) ? replacedExitCode : 1;
};

const isHelp = (arg: string | undefined): boolean => arg === "--help" || arg === "-h";

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...args] = argv;
  if (name === undefined) {
    process.stderr.write(usage);
    return usageExitCode;
  }
  if (name === "--version" || name === "-v") {
    process.stdout.write(`${packageVersion}\n`);
    return 0;
  }
  if (isHelp(name) || name === "help") {
    const [about] = args;
    process.stdout.write(
      about === undefined || isHelp(about) ? usage : usages[commandNamed(about)],
    );
    return 0;
  }
  const command = commandNamed(name);
  if (args.some(isHelp)) {
    process.stdout.write(usages[command]);
    return 0;
  }
  if (ignoresHangup()) process.on("SIGHUP", () => {});
  if (!savingCommands.has(command)) ignoreUserSignals(command);
  const run = await commands[command].load();
  const { flags, rest: given } = takeConsoleFlags(args);
  // Options of a configuration are written either way; so are those of the other commands.
  const rest = configCommands.has(name) ? given : given.map(dashed);
  if (textCommands.has(name)) {
    const { engineEnvironment } = await import("#lib/core/engine-environment");
    for (const line of engineEnvironment(process.env).overruled) {
      process.stderr.write(`warning: ${line}\n`);
    }
  }
  return run(rest, flags);
}

/** @throws E_USAGE, with the command that was meant, or with all of them where none is near */
function commandNamed(name: string): CommandName {
  const names = Object.keys(commands) as CommandName[];
  const known = names.find((each) => each === name);
  if (known !== undefined) return known;
  const near = likelyName(name, names);
  throw new LockstepError("E_USAGE", {
    command: name,
    problem:
      near === undefined
        ? `there is no such command; there are ${names.join(", ")}`
        : `there is no such command; did you mean ${near}?`,
  });
}

goOnWithoutOutput();
const argv = process.argv.slice(2);
try {
  process.exitCode = await main(argv);
} catch (thrown) {
  const error = explainSystemError(thrown);
  printError(error, takeConsoleFlags(argv).flags);
  process.exitCode = error instanceof LockstepError ? exitCodeOf(error) : 1;
}
endSoon();
