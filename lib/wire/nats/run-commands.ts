import { ErrorCode, NatsError, type Subscription } from "nats";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { printable } from "#lib/core/terminal-text";
import type { NatsLink } from "./connection.js";
import { isRunId } from "./event-records.js";

/** What a running run can be told. */
export const runActions = ["pause", "resume", "checkpoint", "stop"] as const;
export type RunAction = (typeof runActions)[number];

/** What the run answers: a line for a person. */
type RunCommandHandler = (action: RunAction) => string | Promise<string>;

interface CommandedRun {
  readonly runId: string;
  readonly epoch: number;
}

/** The epoch is part of it: an owner that was replaced hears nothing that is meant for the next one. */
const subjectOf = ({ runId, epoch }: CommandedRun, action: string): string =>
  `lockstep.command.${runId}.${epoch}.${action}`;

const answerTimeoutMs = 5_000;
const maxAnswerBytes = 4_096;

/** Lets whoever may publish to a run's subjects tell it what to do, and answers. */
export class RunCommands {
  readonly #subscription: Subscription;

  constructor(link: NatsLink, run: CommandedRun, handle: RunCommandHandler) {
    this.#subscription = link.connection.subscribe(subjectOf(run, "*"), {
      callback: (error, message) => {
        if (error !== null) return;
        const name = message.subject.split(".").at(-1);
        const action = runActions.find((each) => each === name);
        if (action === undefined) return;
        void answer(async () => handle(action))
          .then((answered) => message.respond(JSON.stringify(answered)))
          // Whoever asked hears nothing, and asks again.
          .catch(() => {});
      },
    });
  }

  close(): void {
    this.#subscription.unsubscribe();
  }
}

type Answer =
  | { readonly text: string }
  | { readonly code: string; readonly message: string; readonly hint: string };

async function answer(act: () => Promise<string>): Promise<Answer> {
  try {
    return { text: await act() };
  } catch (error) {
    if (isLockstepError(error)) {
      const { code, message, hint } = error;
      return { code, message, hint };
    }
    return { code: "E_UNEXPECTED", message: String(error), hint: "" };
  }
}

/**
 * Tells a run what to do.
 *
 * @returns what it answers
 * @throws E_RUN_SILENT, E_RUN_REFUSES, E_NATS_REFUSED
 */
export async function commandRun(
  link: NatsLink,
  run: CommandedRun,
  action: RunAction,
): Promise<string> {
  const subject = subjectOf(run, action);
  if (!isRunId(run.runId)) throw new RangeError(`no run id: ${run.runId}`);
  let data: Uint8Array;
  try {
    ({ data } = await link.ask(() =>
      link.connection.request(subject, "", { timeout: answerTimeoutMs }),
    ));
  } catch (error) {
    if (!(error instanceof NatsError)) throw error;
    if (error.code === ErrorCode.PermissionsViolation) {
      const reason = `this user may not publish to ${subject}`;
      throw new LockstepError(
        "E_NATS_REFUSED",
        { servers: link.servers, reason },
        { cause: error },
      );
    }
    const { runId, epoch } = run;
    const problem = silenceOf(error);
    throw new LockstepError("E_RUN_SILENT", { runId, epoch, problem }, { cause: error });
  }
  const { text, message } = readAnswer(data);
  if (text !== undefined) return printable(text);
  throw new LockstepError("E_RUN_REFUSES", {
    ...{ runId: run.runId, action },
    reason: printable(message ?? "it gave no reason"),
  });
}

function silenceOf({ code, message }: NatsError): string {
  switch (code) {
    case ErrorCode.NoResponders:
      return "no coordinator listens to it";
    case ErrorCode.Timeout:
      return `it gave no answer in ${answerTimeoutMs / 1_000} s`;
    default:
      return message;
  }
}

function readAnswer(data: Uint8Array): { readonly text?: string; readonly message?: string } {
  if (data.length > maxAnswerBytes) return {};
  try {
    const parsed: unknown = JSON.parse(new TextDecoder().decode(data));
    if (typeof parsed !== "object" || parsed === null) return {};
    const { text, message } = parsed as Readonly<Record<string, unknown>>;
    return {
      ...(typeof text === "string" ? { text } : {}),
      ...(typeof message === "string" ? { message } : {}),
    };
  } catch {
    return {};
  }
}
