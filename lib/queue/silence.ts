import type { Job, JobBeat } from "./job.js";

interface Seen {
  readonly epoch: number;
  readonly beats: number;
  readonly silentForMs: number;
  readonly lookedAtMs: number;
}

/**
 * How long the agents of jobs have given no sign of life, by this process' own clock: what was measured by another
 * one's clock says nothing here.
 */
export class Silence {
  readonly #seen = new Map<string, Seen>();

  /**
   * Looks at a job that runs.
   *
   * @param lookEveryMs time between two looks at most: a process that was stopped itself has not looked meanwhile
   * @returns whether its agent has been silent for longer than it promised
   */
  isLapsed(job: Job, beat: JobBeat | undefined, nowMs: number, lookEveryMs: number): boolean {
    const { epoch, owner } = job;
    const beats = beat?.epoch === epoch ? beat.beats : 0;
    const seen = this.#seen.get(job.id);
    const isNew = seen === undefined || seen.epoch !== epoch || seen.beats !== beats;
    const silentForMs = isNew
      ? 0
      : seen.silentForMs + Math.min(nowMs - seen.lookedAtMs, 2 * lookEveryMs);
    this.#seen.set(job.id, { epoch, beats, silentForMs, lookedAtMs: nowMs });
    return owner !== null && silentForMs >= owner.leaseMs;
  }

  keepOnly(ids: ReadonlySet<string>): void {
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
  }
}
