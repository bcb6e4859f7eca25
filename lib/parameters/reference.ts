import { buildParameterLayout, regionAt, type TensorSlot } from "#lib/core/parameter-layout";
import type { WireDtype } from "#lib/core/dtype";
import type { ElementRange } from "#lib/core/parameter-layout";
import { counted } from "#lib/core/format";
import type { ChosenParameters } from "./kind.js";
import { numElements, type StartingModel } from "./model.js";

/** No weight of a model has a name with a slash. */
const prefix = "reference/";

/** What the frozen copy of a trained weight is called. */
export const referenceNameOf = (weight: string): string => `${prefix}${weight}`;

/** The weight that a tensor is the copy of; undefined where it is none. */
export const referencedName = (tensor: string): string | undefined =>
  tensor.startsWith(prefix) ? tensor.slice(prefix.length) : undefined;

/** What TRL does otherwise, and who brings its way about. */
const continuedLine =
  "the reference is without the adapter that is trained further, as in LLaMA-Factory; TRL's is a copy of it: for that " +
  "merge it (lockstep merge-adapter), and train a new adapter on the merged model";

/**
 * Parameters beside which the model that the run starts from stays: of the model's own weights that are trained a
 * copy is frozen, and what is added to a model is left out, also where a run goes on with an adapter that is there.
 *
 * @param dtype in which copies of matrices travel
 */
export function withReference(
  parameters: ChosenParameters,
  model: Pick<StartingModel, "weights" | "tiedEmbedding" | "read" | "adapter">,
  dtype: WireDtype,
): ChosenParameters {
  const { layout, frozen, loadFrozen } = parameters;
  const sources = new Map(model.weights.map(({ name }) => [name, name]));
  // A head that an adapter unties from the embedding begins as the embedding.
  if (model.tiedEmbedding !== undefined && !sources.has("lm_head.weight")) {
    sources.set("lm_head.weight", model.tiedEmbedding);
  }
  const copied = layout.tensors.filter(({ name }) => sources.has(name));
  const isAdapted = copied.length < layout.tensors.length;
  const line =
    copied.length === 0
      ? "reference: the model without its adapters"
      : `reference: the weights of model_name_or_path, as a frozen copy of ${counted(numElements(copied), "trained parameter")}${isAdapted ? ", without adapters" : ""}`;
  const lines = [
    ...parameters.lines,
    line,
    ...(model.adapter === undefined ? [] : [continuedLine]),
  ];
  if (copied.length === 0) return { ...parameters, lines };
  const kept = new Map((frozen?.tensors ?? []).map((slot) => [slot.name, slot]));
  const whole = buildParameterLayout(
    [...kept.values(), ...copied.map((slot) => ({ ...slot, name: referenceNameOf(slot.name) }))],
    ({ name }) => {
      const slot = kept.get(name);
      return slot === undefined || frozen === undefined
        ? dtype
        : regionAt(frozen, slot.offset).dtype;
    },
  );
  const fill = async (slot: TensorSlot, span: ElementRange, part: Float32Array): Promise<void> => {
    const weight = referencedName(slot.name);
    if (weight !== undefined) {
      const source = sources.get(weight) ?? weight;
      await model.read(source, part, { start: span.start, count: part.length });
      return;
    }
    const { offset = 0 } = kept.get(slot.name) ?? {};
    await loadFrozen?.({ start: offset + span.start, end: offset + span.end }, part);
  };
  return {
    ...parameters,
    lines,
    frozen: whole,
    loadFrozen: async (range, into) => {
      for (const slot of whole.tensors) {
        const start = Math.max(range.start, slot.offset);
        const end = Math.min(range.end, slot.offset + slot.size);
        if (start >= end) continue;
        const part = into.subarray(start - range.start, end - range.start);
        await fill(slot, { start: start - slot.offset, end: end - slot.offset }, part);
      }
    },
  };
}
