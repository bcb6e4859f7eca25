import type { RunWorkers } from "#lib/queue/job";
import type { JobView } from "#lib/queue/job-queue";

/** What a run wants that has not said how many workers it has: one may try. */
const unknown: RunWorkers = { least: 1, planned: 1, most: null, joined: 0 };

/** How many workers a run wants, the more urgent first: to begin, for its plan, and as many as it takes. */
const wants: readonly ((workers: RunWorkers) => number)[] = [
  ({ least, joined }) => least - joined,
  ({ planned, joined }) => planned - joined,
  ({ most, joined }) => (most ?? 0) - joined,
];

const mayBeJoined = ({ job, beat }: JobView): boolean =>
  job.state === "running" && beat !== undefined && beat.address !== null;

/**
 * The run that a free worker joins: one that cannot begin before one that has fewer workers than planned, of these one of
 * the highest priority, and of these a random one, the likelier the more it wants. Workers that look at the same moment
 * so do not all join one.
 *
 * @param random from 0 to 1
 */
export function chooseRun(views: readonly JobView[], random: () => number): JobView | undefined {
  const joinable = views.filter(mayBeJoined);
  for (const want of wants) {
    const wanting = joinable
      .map((view) => ({ view, count: want(view.beat?.workers ?? unknown) }))
      .filter(({ count }) => count > 0);
    if (wanting.length === 0) continue;
    const highest = Math.max(...wanting.map(({ view }) => view.job.priority));
    const first = wanting.filter(({ view }) => view.job.priority === highest);
    let at = random() * first.reduce((sum, { count }) => sum + count, 0);
    return (first.find(({ count }) => (at -= count) < 0) ?? first[0])?.view;
  }
  return undefined;
}

/**
 * Whether a worker leaves its run for one that wants it more: where its own has more workers than planned, and another one
 * fewer. As many leave as are too many, by chance, for each decides for itself.
 */
export function leavesFor(
  own: JobView,
  views: readonly JobView[],
  random: () => number,
): JobView | undefined {
  const { workers } = own.beat ?? {};
  if (workers === null || workers === undefined) return undefined;
  const tooMany = workers.joined - workers.planned;
  if (tooMany <= 0 || random() >= tooMany / workers.joined) return undefined;
  const others = views.filter(
    (view) => view.job.id !== own.job.id && (wants[1]?.(view.beat?.workers ?? unknown) ?? 0) > 0,
  );
  return chooseRun(others, random);
}
