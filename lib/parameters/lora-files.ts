import {
  adapterKey,
  type LoraConfig,
  tiedHeadPath,
  writeAdapterDirectory,
} from "#lib/checkpoint/peft/index";
import type { ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import { saveBeside } from "./beside-adapter.js";
import type { SavedContent } from "./kind.js";
import type { StartingModel } from "./model.js";

/** An adapter as it is saved. */
interface TrainedAdapter {
  readonly base: StartingModel;
  /** Complete (see completeLoraConfig). */
  readonly config: LoraConfig;
  readonly layout: ParameterLayout;
}

/** Writes an adapter as peft does, with the base model's tokenizer and, for a classifier, its classes. */
export async function saveAdapter(
  directory: string,
  { base, config, layout }: TrainedAdapter,
  { valuesOf, dtype, openTarget }: SavedContent,
): Promise<void> {
  await writeAdapterDirectory(directory, {
    config,
    ...{ dtype, openTarget },
    baseDigest: await base.digest(),
    tensors: adapterTensors(base, config, layout).map(({ name, slot }) => ({
      name,
      shape: slot.shape,
      read: async () => valuesOf(slot),
    })),
  });
  await saveBeside(directory, base);
}

/** The tensors of the adapter's file and what of the trained space they hold. */
function adapterTensors(
  { tiedEmbedding }: StartingModel,
  { ensure_weight_tying }: LoraConfig,
  { tensors }: ParameterLayout,
): readonly { readonly name: string; readonly slot: TensorSlot }[] {
  const own = tensors.map((slot) => ({ name: adapterKey(slot.name), slot }));
  const table = ensure_weight_tying
    ? tensors.find(({ name }) => name === tiedEmbedding)
    : undefined;
  // peft reads a tied head from the file too.
  return table === undefined
    ? own
    : [...own, { name: adapterKey(`${tiedHeadPath}.weight`), slot: table }];
}
