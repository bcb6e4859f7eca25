import { nearestName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { packageVersion } from "#lib/core/process-metrics";
import { type ConsoleFlags, printError, takeConsoleFlags } from "./console.js";

interface Command {
  readonly summary: string;
  readonly load: () => Promise<{
    readonly usage?: string;
    readonly run: (args: string[], flags: ConsoleFlags) => Promise<number>;
  }>;
}

// A command's modules are loaded when it runs: the coordinator never sees those of the engine.
const commands: Readonly<Record<string, Command>> = {
  train: {
    summary: "CONFIG.yaml: train on this machine with several workers",
    load: async () => {
      const { trainCommand, trainUsage } = await import("./train.js");
      return { usage: trainUsage, run: trainCommand };
    },
  },
  "train-local": {
    summary: "CONFIG.yaml: the same run in one process, without a cluster",
    load: async () => ({ run: (await import("./train-local.js")).trainLocalCommand }),
  },
  coordinator: {
    summary: "CONFIG.yaml: host a run for workers elsewhere",
    load: async () => {
      const { coordinatorCommand, coordinatorUsage } = await import("./coordinator.js");
      return { usage: coordinatorUsage, run: coordinatorCommand };
    },
  },
  worker: {
    summary: "--coordinator HOST:PORT: compute for a run",
    load: async () => {
      const { workerCommand, workerUsage } = await import("./worker.js");
      return { usage: workerUsage, run: workerCommand };
    },
  },
  "import-gguf": {
    summary: "FILE DIR: turn a GGUF file into a Hugging Face directory",
    load: async () => ({ run: (await import("./import-gguf.js")).importGgufCommand }),
  },
  "merge-adapter": {
    summary: "ADAPTER_DIR OUT_DIR: add a LoRA adapter into its base model",
    load: async () => {
      const { mergeAdapterCommand, mergeAdapterUsage } = await import("./merge-adapter.js");
      return { usage: mergeAdapterUsage, run: mergeAdapterCommand };
    },
  },
  generate: {
    summary: "MODEL_DIR --prompt TEXT: continue a text with a model",
    load: async () => {
      const { generateCommand, generateUsage } = await import("./generate.js");
      return { usage: generateUsage, run: generateCommand };
    },
  },
  "verify-model": {
    summary: "DIR: compare a model's numbers with those of transformers",
    load: async () => {
      const { verifyModelCommand, verifyModelUsage } = await import("./verify-model.js");
      return { usage: verifyModelUsage, run: verifyModelCommand };
    },
  },
  device: {
    summary: "show what this machine computes on, and how fast",
    load: async () => {
      const { deviceCommand, deviceUsage } = await import("./device.js");
      return { usage: deviceUsage, run: deviceCommand };
    },
  },
  config: {
    summary: "CONFIG.yaml: print the resolved configuration; --keys lists all keys",
    load: async () => {
      const { configCommand, configUsage } = await import("./config.js");
      return { usage: configUsage, run: configCommand };
    },
  },
};

const usage = `lockstep ${packageVersion}: fine-tunes language models on a cluster

Usage: lockstep COMMAND ...

${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(13)} ${summary}`)
  .join("\n")}

lockstep COMMAND --help tells more.
`;

/** Exit code of a command line that could not be read, as most programs have it. */
const usageExitCode = 2;

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...args] = argv;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    (name === undefined ? process.stderr : process.stdout).write(usage);
    return name === undefined ? usageExitCode : 0;
  }
  if (name === "--version" || name === "-v") {
    process.stdout.write(`${packageVersion}\n`);
    return 0;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    const nearest = nearestName(name, Object.keys(commands)) ?? "";
    throw new LockstepError("E_USAGE", {
      command: name,
      problem: `there is no such command; did you mean ${nearest}`,
    });
  }
  const { usage: commandUsage, run } = await command.load();
  if (commandUsage !== undefined && args.some((arg) => arg === "--help" || arg === "-h")) {
    process.stdout.write(commandUsage);
    return 0;
  }
  const { flags, rest } = takeConsoleFlags(args);
  return run(rest, flags);
}

// gRPC's own log on standard error repeats what our errors say, between the lines of the display.
process.env.GRPC_VERBOSITY ??= "NONE";

// Who reads the output may go away (`| head`, a `tee` that dies): a run is worth more than its display.
process.stdout.on("error", () => {});

const argv = process.argv.slice(2);
try {
  process.exitCode = await main(argv);
} catch (error) {
  printError(error, takeConsoleFlags(argv).flags);
  process.exitCode = error instanceof LockstepError && error.code === "E_USAGE" ? usageExitCode : 1;
}
