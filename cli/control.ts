import { printable } from "#lib/core/terminal-text";
import { NatsLink } from "#lib/wire/nats/connection";
import { findRun } from "#lib/wire/nats/event-watch";
import { commandRun, runActions } from "#lib/wire/nats/run-commands";
import { readCommandLine, usageOf } from "./command-line.js";
import { natsOptions, natsSettingsOf } from "./nats-options.js";

/** `lockstep control`: tells a running run what to do. Returns the exit code. */
export async function controlCommand(args: readonly string[]): Promise<number> {
  const usage = usageOf("control");
  const options = { ...natsOptions, json: { type: "boolean", default: false } } as const;
  const { values, positionals } = readCommandLine(args, options, usage);
  const [given, name, ...rest] = positionals;
  if (given === undefined || name === undefined || rest.length > 0) {
    return usage(`it takes a run and one of ${runActions.join(", ")}`);
  }
  const action = runActions.find((each) => each === name);
  if (action === undefined) {
    return usage(`there is no action ${name}; there are ${runActions.join(", ")}`);
  }
  const link = await NatsLink.open(natsSettingsOf(values, usage), {
    role: "submitter",
    name: "lockstep control",
    onNews: (line) => process.stderr.write(`${printable(line)}\n`),
  });
  try {
    const run = await findRun(link, given);
    const text = await commandRun(link, run, action);
    const { runId, runName, epoch } = run;
    process.stdout.write(
      values.json
        ? `${JSON.stringify({ runId, epoch, action, text })}\n`
        : `${printable(runName)} (${runId}): ${text}\n`,
    );
    return 0;
  } finally {
    await link.close();
  }
}
