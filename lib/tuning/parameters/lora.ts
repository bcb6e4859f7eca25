import { LockstepError } from "#lib/core/errors/index";
import type { ParametersJob } from "#lib/core/job";
import type { Adapter } from "#lib/models/index";
import { type LoraJob, loraWeightName } from "#lib/parameters/lora-layout";
import type { TracedParameters } from "./index.js";

/** Linear modules with an adapter beside them: y = W x + scale B A x. */
export function lora(job: ParametersJob): TracedParameters {
  const scales = new Map(Object.entries((job as LoraJob).scales));
  const unused = new Set(scales.keys());
  return {
    added: [...scales.keys()].flatMap((path) => [
      loraWeightName(path, "A"),
      loraWeightName(path, "B"),
    ]),

    weightsFrom(found, dropout) {
      const adapterOf = (module: string): Adapter | undefined => {
        const scale = scales.get(module);
        if (scale === undefined) return undefined;
        unused.delete(module);
        const [a, b] = [found(loraWeightName(module, "A")), found(loraWeightName(module, "B"))];
        return { a, b, scale, ...(dropout === undefined ? {} : { dropout }) };
      };
      return Object.assign((name: string) => found(name), { adapterOf });
    },

    // A module may be no linear map of the forward pass, such as an embedding.
    checkAllUsed(modelType) {
      const [module] = unused;
      if (module === undefined) return;
      const problem = `${module} of this ${modelType} model takes no adapter`;
      throw new LockstepError("E_ADAPTER_TARGET", { problem });
    },
  };
}
