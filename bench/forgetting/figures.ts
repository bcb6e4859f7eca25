/** What a run came to: losses of held-out rows, nats a token, by step. */
export interface RunFigures {
  readonly method: string;
  readonly seed: number;
  readonly seconds: number;
  readonly points: readonly {
    readonly step: number;
    /** Of the domain that the run learns. */
    readonly domain: number;
    /** Of general text. */
    readonly general: number;
  }[];
}

/** A mean with the half width of its 95 % interval, by Student's t. */
interface Interval {
  readonly mean: number;
  /** NaN of a single value. */
  readonly half: number;
}

/** Student's t for a two-sided interval of 95 %, by degrees of freedom from 1. */
const studentT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

export function interval(values: readonly number[]): Interval {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const t = studentT[count - 2] ?? (count < 2 ? Number.NaN : 1.96);
  return { mean, half: t * Math.sqrt(squares / (count - 1) / count) };
}

/** What a method's runs came to over its seeds. */
export interface MethodFigures {
  readonly method: string;
  readonly seeds: readonly number[];
  readonly domain: Interval;
  readonly general: Interval;
  /** General loss after less before. */
  readonly forgotten: Interval;
  /** The same less that of the baseline's run of the same seed: below 0, the method forgets less. */
  readonly againstBaseline: Interval | undefined;
  readonly seconds: number;
}

export function methodFigures(
  runs: readonly RunFigures[],
  method: string,
  baseline: string,
): MethodFigures | undefined {
  const own = runs.filter((run) => run.method === method);
  if (own.length === 0) return undefined;
  const end = ({ points }: RunFigures, of: "domain" | "general"): number =>
    points.at(-1)?.[of] ?? Number.NaN;
  const forgotten = (run: RunFigures): number =>
    end(run, "general") - (run.points[0]?.general ?? Number.NaN);
  const pairs = own.flatMap((run) => {
    const other = runs.find((each) => each.method === baseline && each.seed === run.seed);
    return other === undefined || method === baseline ? [] : [forgotten(run) - forgotten(other)];
  });
  return {
    method,
    seeds: own.map(({ seed }) => seed),
    domain: interval(own.map((run) => end(run, "domain"))),
    general: interval(own.map((run) => end(run, "general"))),
    forgotten: interval(own.map(forgotten)),
    againstBaseline: pairs.length === 0 ? undefined : interval(pairs),
    seconds: own.reduce((sum, { seconds }) => sum + seconds, 0) / own.length,
  };
}

/** "1.234 ± 0.056". */
export const intervalWords = ({ mean, half }: Interval): string =>
  `${mean.toFixed(3)}${Number.isFinite(half) ? ` ± ${half.toFixed(3)}` : ""}`;
