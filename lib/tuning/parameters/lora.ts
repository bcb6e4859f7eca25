import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { ParametersJob } from "#lib/core/job";
import type { Adapter } from "#lib/models/index";
import { adapterTensorNames, type LoraJob } from "#lib/parameters/lora-layout";
import type { TracedParameters } from "./index.js";

/** Linear modules with an adapter beside them: y = W x + scale B A x, with DoRA in rows of trained norms. */
export function lora(job: ParametersJob): TracedParameters {
  const loraJob = job as LoraJob;
  const scales = new Map(Object.entries(loraJob.scales));
  const unused = new Set(scales.keys());
  return {
    added: [...scales.keys()].flatMap((path) => adapterTensorNames(loraJob, path)),

    weightsFrom(found, dropout) {
      const adapterOf = (module: string): Adapter | undefined => {
        const scale = scales.get(module);
        if (scale === undefined) return undefined;
        unused.delete(module);
        const [a, b, magnitude] = adapterTensorNames(loraJob, module).map(found) as [
          tf.Tensor,
          tf.Tensor,
          tf.Tensor?,
        ];
        return {
          ...{ a, b, scale },
          ...(magnitude === undefined ? {} : { magnitude }),
          ...(dropout === undefined ? {} : { dropout }),
        };
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
