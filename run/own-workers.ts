import { randomBytes } from "node:crypto";
import type { EventSource } from "#lib/wire/event-bus";
import type { Supervisor } from "./supervisor.js";

/** Names this process to the workers that it starts; other machines have processes of the same ids. */
const variable = "LOCKSTEP_STARTED_BY";
/** Of a coordinator whose run another process supervises: what names that one. */
const lifeVariable = "LOCKSTEP_RUN_LIFE";
const life = process.env[lifeVariable] ?? randomBytes(12).toString("hex");

/** For the environment of workers that this process starts. */
export const startedHere: Readonly<Record<string, string>> = {
  [variable]: life,
};

/** For the environment of a coordinator whose workers this process starts. */
export const supervisedHere: Readonly<Record<string, string>> = { [lifeVariable]: life };

/** What the incarnations of a process begin with that this one started. */
export const incarnationsOf = (pid: number): string => `${life}/${pid}/`;

/** Whether an incarnation is that of a process that this one started. */
export const isStartedHere = (incarnation: string): boolean => incarnation.startsWith(`${life}/`);

/** A worker's own incarnation, by which whoever started it knows it. */
export function supervisedIncarnation(): string {
  return `${process.env[variable] ?? ""}/${process.pid}/${randomBytes(12).toString("hex")}`;
}

/** Tells the supervisor of workers that finished a group. */
export function tellProgress(bus: EventSource, workers: Pick<Supervisor, "progressed">): void {
  const pids = new Map<string, number>();
  bus.subscribe((event) => {
    if (event.type === "worker.joined") pids.set(event.workerId, event.pid);
    if (event.type === "group.completed") workers.progressed(pids.get(event.workerId) ?? 0);
  });
}
