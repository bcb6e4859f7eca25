import { Counter, Gauge, type Registry } from "prom-client";

/** What became of a run's events on their way to a server. */
interface StreamFigures {
  readonly numPublished: number;
  readonly numDropped: number;
  readonly numWaiting: number;
}

const none: StreamFigures = { numPublished: 0, numDropped: 0, numWaiting: 0 };

/**
 * Adds metrics of a run's event stream to a registry.
 *
 * @param figures undefined where there is no stream
 */
export function addEventStreamMetrics(
  registry: Registry,
  figures: () => StreamFigures | undefined,
): void {
  const registers = [registry];
  const follow = (name: string, help: string, value: (now: StreamFigures) => number): void => {
    new Counter({
      ...{ name, help, registers },
      collect() {
        this.reset();
        this.inc(value(figures() ?? none));
      },
    });
  };
  follow(
    "lockstep_events_published_total",
    "Events of the run that the stream has stored.",
    ({ numPublished }) => numPublished,
  );
  follow(
    "lockstep_events_dropped_total",
    "Events of the run that the stream does not get: too many waited.",
    ({ numDropped }) => numDropped,
  );
  new Gauge({
    name: "lockstep_events_waiting",
    help: "Events of the run that wait to be stored.",
    registers,
    collect() {
      this.set((figures() ?? none).numWaiting);
    },
  });
}
