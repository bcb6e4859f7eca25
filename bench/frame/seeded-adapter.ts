import { AdapterDirectory, loraPartOf } from "#lib/checkpoint/peft/index";
import { computeDtypes, type Precision } from "#lib/core/dtype";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import { fillRange } from "#lib/core/wire-space";
import { layOutAdapter, type LoraJob } from "#lib/parameters/lora-layout";
import type { SeededModel } from "./seeded-model.js";
import { adapterFacts } from "#lib/models/facts";

/** An adapter that bench/peers/lora.py wrote for a seeded model. */
interface SeededAdapter {
  /** What is trained: float32 on the wire, as peft keeps it. */
  readonly layout: ParameterLayout;
  readonly frozen: ParameterLayout;
  readonly job: LoraJob;
  readonly loadMasters: (range: ElementRange, into: Float32Array) => Promise<void>;
  readonly loadFrozen: (range: ElementRange, into: Float32Array) => Promise<void>;
}

export async function openSeededAdapter(
  base: SeededModel,
  directory: string,
  precision: Precision,
): Promise<SeededAdapter> {
  const adapter = await AdapterDirectory.open(directory);
  const model = {
    facts: adapterFacts(base.modelConfig),
    weights: base.layout.tensors.map(({ name, shape }) => ({ name, shape })),
  };
  adapter.checkAgainst(model);
  const { trained, frozen, job } = layOutAdapter(adapter.config, model, {
    wireDtype: "float32",
    frozenDtype: computeDtypes[precision],
  });
  return {
    layout: trained,
    frozen,
    job,
    loadMasters: (range, into) =>
      fillRange(trained, range, into, async ({ name }) => {
        const found = loraPartOf(name);
        return found === undefined
          ? adapter.readSaved(name)
          : adapter.readPart(found.path, found.part);
      }),
    loadFrozen: base.loaderOf(frozen),
  };
}
