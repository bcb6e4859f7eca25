import { disagreement, failed, judge, type Pair } from "./compare.js";
import type { Experiment, RowResult } from "./experiment.js";
import { measure } from "./process.js";
import type { Workspace } from "./workspace.js";

interface RunOptions {
  readonly numPairs: number;
  readonly prefix?: readonly string[];
  readonly onPair?: (index: number, pair: Pair) => void;
}

/** Ours, peer, ours, peer, ..., each in a fresh process; every row of the experiment from the same pairs. */
export async function runExperiment(
  experiment: Experiment,
  workspace: Workspace,
  { numPairs, prefix = [], onPair }: RunOptions,
): Promise<RowResult[]> {
  try {
    const pairs: Pair[] = [];
    for (let index = 0; index < numPairs; index++) {
      const ours = await measure(await experiment.ours(workspace, index), prefix);
      const peer =
        experiment.peer && (await measure(await experiment.peer(workspace, index), prefix));
      const pair = { ours, peer };
      const problem = disagreement(pair, experiment.tolerances);
      if (problem !== undefined) throw new Error(problem);
      onPair?.(index, pair);
      pairs.push(pair);
    }
    return experiment.rows.map((row) => judge(row, pairs));
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return experiment.rows.map((row) => failed(row, problem));
  }
}
