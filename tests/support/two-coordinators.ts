import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { mastersOf } from "./job-runs.js";
import { type CommandOutcome, lockstepCommand } from "./lockstep-command.js";
import { freePorts } from "./ports.js";
import { createTinyJob, type TinyJob } from "./tiny-job.js";

const engine = join(packageRoot, "dist/tests/support/paced-engine.js");
/** So slow that the first coordinator is struck long before its last step. */
const paced = { LOCKSTEP_TEST_BATCH_MS: "100" };

/** Steps of a run that two coordinators make. */
export const stepsOfTwo = 30;

/** The job of such a run: one that goes on from a checkpoint has saved one before. */
export const createJobOfTwo = (): Promise<TinyJob> =>
  createTinyJob({
    ...{ engine_module: engine, max_steps: stepsOfTwo, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "steps", save_steps: 4, logging_steps: 10, eval_on_start: false },
  });

/** What came of both coordinators and the workers. */
interface Takeover {
  readonly took: CommandOutcome;
  readonly tookMs: number;
  /** The one that was struck, and how it ends. */
  readonly struck: ChildProcess;
  readonly first: Promise<CommandOutcome>;
}

/**
 * A run whose coordinator is struck once it has saved a checkpoint and another one stands by, which goes on; workers
 * know the addresses of both, and end with the run.
 *
 * @param options.args of each coordinator, by its number, beside what both have
 * @param options.standsBy what the second one says when it waits
 * @param options.withinMs for the second one to begin; it takes 10 s at most where a processor is free
 * @param options.running gets the processes, to be killed where the test fails
 */
export async function takeOver(options: {
  readonly job: TinyJob;
  readonly name: string;
  readonly args: (number: 0 | 1) => readonly string[];
  readonly strike: (first: ChildProcess) => Promise<void> | void;
  readonly standsBy: RegExp;
  readonly withinMs: number;
  /** Gets the events of the second one. */
  readonly onFollowing?: (event: LockstepEvent) => void;
  readonly expected: string;
  readonly running: Set<ChildProcess>;
}): Promise<Takeover> {
  const { job, name, args, strike, standsBy, withinMs, expected, running } = options;
  const cache = join(job.directory, "cache");
  const addresses = await Promise.all([0, 1].map(async () => `127.0.0.1:${await freePorts(3)}`));
  const coordinator = (
    number: 0 | 1,
    onEvent: NonNullable<Parameters<typeof lockstepCommand>[2]>,
  ): Promise<CommandOutcome> =>
    lockstepCommand(
      [
        ...["coordinator", job.configFile, "--json-logs", "--standby"],
        ...["--listen", addresses[number] ?? "", "--metrics_port", "null"],
        ...["--output_dir", join(job.directory, name), ...args(number)],
      ],
      cache,
      (event, child) => {
        running.add(child);
        onEvent(event, child);
      },
    );
  const [leading, leads] = signalled();
  const [standing, stands] = signalled();
  let struck: ChildProcess | undefined;
  let strikes = (_ending: Promise<void>): void => {};
  const striking = new Promise<void>((resolve) => {
    strikes = resolve;
  });
  let [struckAtMs, tookMs] = [0, 0];
  let isSaved = false;
  const first = coordinator(0, (event, child) => {
    if (event.type === "phase.changed") leads();
    if (event.type === "checkpoint.saved") isSaved = true;
    if (event.type !== "step.completed" || !isSaved || struck !== undefined) return;
    struck = child;
    strikes(
      standing.then(async () => {
        await strike(child);
        struckAtMs = performance.now();
      }),
    );
  });
  await leading;
  const second = coordinator(1, (event) => {
    options.onFollowing?.(event);
    if (event.type === "note" && standsBy.test(event.text)) stands();
    if (event.type === "run.started" && tookMs === 0) tookMs = performance.now() - struckAtMs;
  });
  await standing;
  const workers = [1, 2].map(() =>
    lockstepCommand(
      [
        ...["worker", "--use-cpu", "--metrics-port", "null", "--engine-module", engine],
        ...["--coordinator", addresses.join(",")],
      ],
      cache,
      undefined,
      paced,
    ),
  );
  // Who could not strike says why, and nobody waits for a takeover then.
  const took = await Promise.race([second, striking.then(() => second)]);
  assert.equal(mastersOf(took), expected);
  assert.ok(tookMs > 0 && tookMs < withinMs, `took over after ${Math.round(tookMs)} ms`);
  assert.ok((took.of("step.completed")[0]?.step ?? 0) > 1, "it began anew");
  for (const { code, stderr } of await Promise.all(workers)) assert.equal(code, 0, stderr);
  assert.ok(struck !== undefined);
  return { took, tookMs, struck, first };
}

function signalled(): readonly [Promise<void>, () => void] {
  let signal = (): void => {};
  const promise = new Promise<void>((resolve) => {
    signal = resolve;
  });
  return [promise, () => signal()];
}
