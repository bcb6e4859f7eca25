/**
 * The run of a queued job. Without `steps` in the configuration it is `lockstep train`; with `steps` and `output_dir` some
 * small steps, each of which is kept in the output directory before the next one begins, under the directory's claim.
 */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parse } from "yaml";
import { recoverInterruptedSaves, saveFilesAtomically } from "#lib/checkpoint/atomic-save";
import { jobFence } from "#run/job-fence";
import { claimOutputDirectory } from "#run/output-directory";
import { keptSteps, stepFile } from "./kept-steps.js";

const stepMs = 120;
/** In the environment: the step after which it stops itself, as SIGSTOP does. */
const stopsAfter = "LOCKSTEP_TEST_STOPS_AFTER";
const [, , file = ""] = process.argv;
const config = parse(readFileSync(file, "utf8")) as {
  readonly steps?: number;
  readonly output_dir: string;
};
const { steps: numSteps } = config;
if (numSteps === undefined) {
  process.argv.splice(2, 0, "train");
  // It ends by itself, and this process with it.
  await import("#cli/main");
} else await makeSteps(numSteps);

async function makeSteps(total: number): Promise<void> {
  const say = (event: Readonly<Record<string, unknown>>): void => {
    process.stdout.write(`${JSON.stringify(event)}\n`);
  };
  const leave = (code: string, message: string): never => {
    process.stderr.write(`${JSON.stringify({ type: "error", code, message })}\n`);
    process.exit(1);
  };

  let isStopping = false;
  process.on("SIGTERM", () => {
    isStopping = true;
  });
  process.on("disconnect", () => {
    isStopping = true;
  });
  process.channel?.unref();

  const fence = jobFence();
  const claim = await claimOutputDirectory(config.output_dir, {
    ...{ fence, beatMs: 100, silentMs: 1_000 },
    onLost: (error) => leave(error.code, error.message),
  }).catch((error: unknown) => leave("E_CLAIM", String(error)));
  await recoverInterruptedSaves(config.output_dir);
  let step = keptSteps(config.output_dir).at(-1)?.step ?? 0;
  say({ type: "run.started", totalSteps: total, plannedWorkers: 1 });
  while (step < total && !isStopping) {
    await delay(stepMs);
    step++;
    const made = { step, epoch: fence?.epoch ?? 0, pid: process.pid };
    try {
      await saveFilesAtomically(config.output_dir, (temporary) =>
        writeFile(join(temporary, stepFile(made)), ""),
      );
    } catch (error) {
      leave("E_LOST", String(error));
    }
    say({ type: "step.completed", step, totalSteps: total, loss: 1 });
    if (`${step}` === process.env[stopsAfter]) process.kill(process.pid, "SIGSTOP");
  }
  await claim.release();
  if (isStopping) process.exit(143);
  say({ type: "run.completed", step, mastersSha256: "" });
  if (process.connected) process.disconnect();
}
