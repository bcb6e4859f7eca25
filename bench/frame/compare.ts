import type { Experiment, Measurement, Row, RowResult } from "./experiment.js";

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("the median of nothing");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export interface Pair {
  readonly ours: Measurement;
  readonly peer: Measurement | undefined;
}

/** What is wrong with a pair's numbers; undefined where both computed the same. */
export function disagreement(
  { ours, peer }: Pair,
  tolerances: Experiment["tolerances"],
): string | undefined {
  if (peer === undefined) return undefined;
  for (const [name, tolerance] of Object.entries(tolerances)) {
    const [a, b] = [ours.check[name], peer.check[name]];
    if (a === undefined || b === undefined) {
      return `${a === undefined ? "ours" : "the peer"} printed no check "${name}"`;
    }
    // Written so that NaN is a disagreement.
    if (!(Math.abs(a - b) <= tolerance * Math.abs(b))) {
      return `${name}: ours ${a}, the peer's ${b}, further apart than ${tolerance} of it`;
    }
  }
  return undefined;
}

/** Medians over the pairs, and whether the ratio of the medians keeps the bar. */
export function judge(row: Row, pairs: readonly Pair[]): RowResult {
  const name = row.value ?? row.name;
  const samples = pairs.map(({ ours, peer }) => {
    const theirs = row.withoutPeer === true ? null : valueOf(peer, name, "the peer");
    return [valueOf(ours, name, "ours"), theirs] as const;
  });
  const ours = median(samples.map(([value]) => value));
  const peer = row.withoutPeer === true ? null : median(samples.map(([, value]) => value ?? 0));
  const ratio = peer === null ? ours : ours / peer;
  const holds = row.direction === "at most" ? ratio <= row.bar : ratio >= row.bar;
  return { row, ours, peer, ratio, holds, samples };
}

export function failed(row: Row, problem: string): RowResult {
  return { row, ours: null, peer: null, ratio: null, holds: false, samples: [], problem };
}

function valueOf(measurement: Measurement | undefined, name: string, side: string): number {
  const value = measurement?.values[name];
  if (value !== undefined && Number.isFinite(value) && value > 0) return value;
  throw new RangeError(`${side} printed ${JSON.stringify(value) ?? "no value"} for ${name}`);
}
