import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import { type ParameterLayout, regionAt, type TensorRules } from "#lib/core/parameter-layout";
import { levelOf, topLevel } from "./layers.js";

/** Keys of gradual unfreezing (ULMFiT, Howard and Ruder 2018). */
export const unfreezingFields = {
  unfreeze_steps: z
    .int()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      "gradual unfreezing: the head is trained first, and every so many updates the next layers below are trained too, embeddings last; null: all that is trained is from the start",
    ),
  unfreeze_epochs: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe("the same by the epoch, or by a part of one"),
  unfreeze_layers: z.int().min(1).default(1).describe("how many layers are opened each time"),
};

type UnfreezingSettings = z.output<z.ZodObject<typeof unfreezingFields>>;

/** Rules over these keys that depend on nothing else. @throws E_CONFIG_CONFLICT */
export function checkUnfreezing(config: UnfreezingSettings): void {
  const { unfreeze_steps: steps, unfreeze_epochs: epochs, unfreeze_layers: layers } = config;
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  if (steps !== null && epochs !== null) {
    conflict("unfreeze_steps and unfreeze_epochs", "both say how often layers are opened");
  }
  if (layers !== 1 && steps === null && epochs === null) {
    const reason =
      "without unfreeze_steps or unfreeze_epochs all layers are trained from the start";
    conflict("unfreeze_layers and unfreeze_steps", reason);
  }
}

/** The updates between two openings; undefined where all is trained from the start. */
function intervalOf(config: UnfreezingSettings, stepsPerEpoch: number): number | undefined {
  const { unfreeze_steps: steps, unfreeze_epochs: epochs } = config;
  if (steps !== null) return steps;
  return epochs === null ? undefined : Math.max(1, Math.round(epochs * stepsPerEpoch));
}

interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** What opens at a time. */
interface Opening {
  /** For a person: "layers 28 to 29". */
  readonly what: string;
  readonly levels: ReadonlySet<number>;
}

/** When a run tells that more is trained. */
interface OpeningLine {
  /** Number of the first update that is for it. */
  readonly updateNumber: number;
  readonly text: string;
}

interface Unfreezing {
  /** What a layout asks it for. */
  readonly rules: Pick<TensorRules, "firstUpdatesOf">;
  /**
   * For a person, before the run and as it goes.
   * @throws E_CONFIG_CONFLICT where all that is trained opens at once
   */
  readonly describe: (
    trained: ParameterLayout,
    totalSteps: number,
  ) => { readonly lines: readonly string[]; readonly openings: readonly OpeningLine[] };
}

/** Gradual unfreezing as a configuration asks for it; a run that does not has no rules and no lines. */
export function unfreezingOf(
  config: UnfreezingSettings,
  {
    isEmbeddingTable,
    stepsPerEpoch,
  }: { readonly isEmbeddingTable: (name: string) => boolean; readonly stepsPerEpoch: number },
): Unfreezing {
  const interval = intervalOf(config, stepsPerEpoch);
  if (interval === undefined) return { rules: {}, describe: () => ({ lines: [], openings: [] }) };
  const level = ({ name }: NamedTensor): number => levelOf(name, isEmbeddingTable);
  const openingsOf = (tensors: readonly NamedTensor[]): readonly Opening[] =>
    openings(tensors, level, config.unfreeze_layers);
  return {
    rules: {
      firstUpdatesOf: (tensors) => {
        const all = openingsOf(tensors);
        return (tensor) => 1 + interval * all.findIndex(({ levels }) => levels.has(level(tensor)));
      },
    },
    describe: (layout, totalSteps) => {
      const all = openingsOf(layout.tensors);
      if (all.length < 2) {
        const key = config.unfreeze_steps === null ? "unfreeze_epochs" : "unfreeze_steps";
        throw new LockstepError("E_CONFIG_CONFLICT", {
          keys: `${key} and finetuning_type`,
          reason: `all that is trained opens at once (${all[0]?.what ?? "nothing"}): there are no layers to be opened one after the other`,
        });
      }
      const firstOf = (index: number): number => 1 + interval * index;
      const told = all.map(({ what }, index) => `${what} from update ${firstOf(index)}`);
      const shown = told.length <= 6 ? told : [...told.slice(0, 3), "and so on", ...told.slice(-2)];
      const numOpen = all.filter((_, index) => firstOf(index) <= totalSteps).length;
      const closed = all.slice(numOpen).map(({ what }) => what);
      const lines = [`gradual unfreezing: ${shown.join(", ")}`];
      if (closed.length > 0) {
        const which =
          closed.length <= 3 ? closed.join(", ") : `${closed[0]} down to ${closed.at(-1)}`;
        lines.push(
          `warning: the run ends after ${counted(totalSteps, "step")}, before all is opened; as they are stay: ${which}`,
        );
      }
      return {
        lines,
        openings: all.slice(1, numOpen).map(({ what }, index) => {
          const updateNumber = firstOf(index + 1);
          const numOpened = numTrainedFrom(layout, updateNumber);
          return {
            updateNumber,
            text: `unfreezing: ${what}, trained from update ${updateNumber} on; ${withCommas(numOpened)} parameters are open`,
          };
        }),
      };
    },
  };
}

/**
 * From the top to the bottom: the head, then so many layers at a time, then embeddings. What is above the layers is no
 * opening of its own where it is vectors only, as the last norm is above which the head is the embedding table.
 */
function openings(
  tensors: readonly NamedTensor[],
  level: (tensor: NamedTensor) => number,
  layersAtATime: number,
): readonly Opening[] {
  const levels = [...new Set(tensors.map(level))].sort((a, b) => b - a);
  const layers = levels.filter((each) => each >= 0 && each !== topLevel);
  const hasTop = levels.includes(topLevel);
  const isHead = tensors.some((each) => level(each) === topLevel && each.shape.length >= 2);
  const found: Opening[] = [];
  if (hasTop && (isHead || layers.length === 0)) {
    found.push({ what: "what is above the layers", levels: new Set([topLevel]) });
  }
  for (let at = 0; at < layers.length; at += layersAtATime) {
    const some = layers.slice(at, at + layersAtATime);
    const [last = 0, first = 0] = [some[0], some.at(-1)];
    const what = first === last ? `layer ${first}` : `layers ${first} to ${last}`;
    const takesTop = at === 0 && hasTop && !isHead;
    found.push(
      takesTop
        ? { what: `${what} and what is above`, levels: new Set([topLevel, ...some]) }
        : { what, levels: new Set(some) },
    );
  }
  if (levels.some((each) => each < 0)) {
    found.push({ what: "embeddings", levels: new Set(levels.filter((each) => each < 0)) });
  }
  return found;
}

/** Elements that an update is for. */
const numTrainedFrom = (layout: ParameterLayout, updateNumber: number): number =>
  layout.tensors.reduce(
    (sum, { offset, size }) =>
      regionAt(layout, offset).firstUpdate <= updateNumber ? sum + size : sum,
    0,
  );
