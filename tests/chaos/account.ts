import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readTrainerState } from "#lib/checkpoint/index";
import type { LockstepEvent } from "#lib/core/events";
import { gradientGroups } from "./job.js";
import type { Exit } from "./program.js";

type EventOf<T extends LockstepEvent["type"]> = Extract<LockstepEvent, { readonly type: T }>;

/** One life of the coordinator. */
export interface Life {
  readonly events: LockstepEvent[];
  readonly exit: Exit;
  /** The harness killed it. */
  readonly wasKilled: boolean;
}

const eventsOf = <T extends LockstepEvent["type"]>(
  { events }: Pick<Life, "events">,
  type: T,
): EventOf<T>[] => events.filter((event): event is EventOf<T> => event.type === type);

/** The code of the catalogue with which a process said that it ended; undefined: none. */
export const errorCodeOf = ({ stderr }: Exit): string | undefined =>
  /\bE_[A-Z0-9_]+\b/.exec(stderr)?.[0];

/** Of a worker whose coordinator was stopped and may come back. */
const interruptedExitCode = 75;

/** How a process ended by itself; without an error of the catalogue it is a problem. */
export function endOf(
  name: string,
  exit: Exit,
): { readonly end: string } | { readonly problem: string } {
  const code = errorCodeOf(exit);
  const role = name.split("-")[0] ?? name;
  if (exit.code === interruptedExitCode) return { end: `${role} interrupted` };
  if (code !== undefined) return { end: `${role} ${code}` };
  const how = `${name} ended with ${exit.code ?? exit.signal} and no error of the catalogue`;
  return { problem: `${how}: ${exit.stderr.trim().slice(-2_000)}` };
}

/** What is wrong with a life: samples that count twice or not at all, or steps that do not follow. */
export function problemsOfLife({ events }: Pick<Life, "events">): string[] {
  const problems: string[] = [];
  let made = 0;
  let groups: EventOf<"group.completed">[] = [];
  for (const event of events) {
    if (event.type === "run.resumed" || event.type === "shards.rolledBack") {
      made = event.step;
      // What shards that are gone had is computed again.
      groups = [];
    }
    if (event.type === "group.completed") groups.push(event);
    if (event.type !== "step.completed") continue;
    const { step } = event;
    made += 1;
    if (step !== made) problems.push(`step ${step} came where ${made} was due`);
    made = step;
    const done = groups.filter((each) => each.step === step - 1).map(({ group }) => group);
    const whole = Array.from({ length: gradientGroups }, (_, group) => group);
    if (JSON.stringify(done.toSorted((a, b) => a - b)) !== JSON.stringify(whole)) {
      problems.push(`step ${step} is made of the groups [${done.join(", ")}]`);
    }
  }
  return problems;
}

/** What a life lost of the one before it. */
export function problemsBetween(before: Life, after: Life): string[] {
  // It may have ended before it said where it went on.
  if (eventsOf(after, "run.started").length === 0) return [];
  const saved = eventsOf(before, "checkpoint.saved").at(-1)?.step ?? 0;
  const made = eventsOf(before, "step.completed").at(-1)?.step ?? 0;
  const begunAt = eventsOf(after, "run.resumed")[0]?.step ?? 0;
  const isLost = begunAt < (before.wasKilled ? saved : Math.max(saved, made));
  const { code, signal } = before.exit;
  return isLost
    ? [
        `a life that ended with ${code ?? signal} had made ${made} steps and saved ${saved}, the next began at ${begunAt}`,
      ]
    : [];
}

/** What a run ended with. */
export interface Result {
  /** SHA-256 of the model's weights. */
  readonly model: string;
  /** SHA-256 of masters and optimizer state after the last step. */
  readonly state: string;
  readonly losses: string;
}

/** @throws where the run left no result */
export async function resultOf(outputDir: string, totalSteps: number): Promise<Result> {
  const own = join(outputDir, `checkpoint-${totalSteps}`, "lockstep");
  const hash = createHash("sha256");
  for (const name of (await readdir(own)).toSorted()) {
    if (name.startsWith("optimizer-")) hash.update(await readFile(join(own, name)));
  }
  const model = await readFile(join(outputDir, "model.safetensors"));
  const { log_history } = await readTrainerState(outputDir);
  const losses = log_history.flatMap(({ step, loss, grad_norm, eval_loss }) =>
    loss === undefined && eval_loss === undefined ? [] : [{ step, loss, grad_norm, eval_loss }],
  );
  return {
    model: createHash("sha256").update(model).digest("hex"),
    state: hash.digest("hex"),
    losses: JSON.stringify(losses),
  };
}

export function problemsOfResult(result: Result, expected: Result): string[] {
  return (["model", "state", "losses"] as const).flatMap((what) =>
    result[what] === expected[what]
      ? []
      : [`${what} is ${result[what]}, of the undisturbed run ${expected[what]}`],
  );
}
