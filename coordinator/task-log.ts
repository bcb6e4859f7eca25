import type { TaskFigures } from "#lib/core/events";

/** Losses of the tasks in the steps since the last entry of the history, by name. */
export type UnloggedTasks = Readonly<Record<string, readonly (number | null)[]>>;

/** The tasks of a run in its history: of each the mean loss of the steps that had rows of it, and its last weight. */
export class TaskLog {
  readonly #losses: Map<string, number[]>;
  #weights: readonly (readonly [string, number])[] = [];

  /** @param unlogged of the checkpoint that the run goes on from; JSON has null for a loss that is not finite */
  constructor(unlogged: UnloggedTasks = {}) {
    this.#losses = new Map(
      Object.entries(unlogged).map(([name, losses]) => [
        name,
        losses.map((loss) => loss ?? Number.NaN),
      ]),
    );
  }

  step(tasks: readonly TaskFigures[] = []): void {
    this.#weights = tasks.map(({ name, weight }) => [name, weight]);
    for (const { name, loss } of tasks) {
      if (loss !== undefined) this.#losses.set(name, [...(this.#losses.get(name) ?? []), loss]);
    }
  }

  /** For the entry that is due; what it tells of is over then. */
  entry(): Readonly<Record<string, number | null>> {
    const figures: Record<string, number | null> = {};
    for (const [name, weight] of this.#weights) {
      const losses = this.#losses.get(name) ?? [];
      const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
      if (losses.length > 0) figures[`task/${name}/loss`] = Number.isFinite(mean) ? mean : null;
      figures[`task/${name}/weight`] = weight;
    }
    this.#losses.clear();
    return figures;
  }

  /** Undefined of a run of one task. */
  get unlogged(): UnloggedTasks | undefined {
    return this.#weights.length === 0 && this.#losses.size === 0
      ? undefined
      : Object.fromEntries(this.#losses);
  }
}

/** Of a checkpoint; undefined for what is none. */
export function readUnloggedTasks(value: unknown): UnloggedTasks | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const isLosses = (losses: unknown): boolean =>
    Array.isArray(losses) && losses.every((loss) => loss === null || typeof loss === "number");
  return Object.values(value).every(isLosses) ? (value as UnloggedTasks) : undefined;
}
