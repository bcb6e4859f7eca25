import type { CheckpointState, CoordinatorOptions } from "#coordinator/options";
import type { ElementRange } from "#lib/core/parameter-layout";
import type { ShardPiece } from "#lib/core/shard-arrays";
import { fetched } from "./kept-arrays.js";

/** What a coordinator saved, in memory. */
export interface Saved {
  readonly snapshot: readonly ShardPiece[];
  readonly state: CheckpointState;
}

/** Keeps copies, as a file would: the coordinator may reuse a snapshot's memory. */
export function savesInto(
  saved: Saved[],
): NonNullable<CoordinatorOptions["checkpointing"]>["save"] {
  return async (snapshot, state) => {
    const copies = snapshot.map(async ({ range, masters, states }) => ({
      range,
      masters: (await fetched(masters)).slice(),
      states: Object.fromEntries(
        await Promise.all(
          Object.entries(states).map(
            async ([slot, each]) => [slot, (await fetched(each)).slice()] as const,
          ),
        ),
      ),
    }));
    saved.push({ state, snapshot: await Promise.all(copies) });
    return { directory: `checkpoint-${state.step}`, bytes: 1 };
  };
}

/** Options of a coordinator whose run goes on from there, with any number of shards. */
export function goesOnFrom({
  snapshot,
  state,
}: Saved): Pick<CoordinatorOptions, "loadMasters" | "resume"> {
  const copy =
    (arrayOf: (part: ShardPiece) => Float32Array | undefined) =>
    async (range: ElementRange, into: Float32Array): Promise<void> => {
      for (const part of snapshot) {
        for (let i = range.start; i < range.end; i++) {
          if (i >= part.range.start && i < part.range.end) {
            into[i - range.start] = arrayOf(part)?.[i - part.range.start] ?? 0;
          }
        }
      }
    };
  return {
    loadMasters: copy(({ masters }) => masters),
    resume: {
      state,
      loadStates: async (range, into) => {
        for (const [slot, array] of Object.entries(into)) {
          await copy(({ states }) => states[slot])(range, array);
        }
      },
    },
  };
}
