// Shape legend: M tokens, D model width.
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { ParametersJob } from "#lib/core/job";
import { type Activation, activate, activationNames } from "#lib/models/activation";
import type { LayerPart, Sublayer } from "#lib/models/index";
import { linear } from "#lib/models/layers";
import type { BottleneckJob } from "#lib/parameters/adapter-layout";
import type { TracedParameters } from "./index.js";

/**
 * Bottlenecks behind parts of a layer, as AdapterHub's library has them: h becomes h + U f(D x), where x is h
 * (double_seq_bn, Houlsby et al. 2019, arXiv 1902.00751) or the stream with h in it, behind its norm where the layer
 * has one there (seq_bn, Pfeiffer et al. 2020, arXiv 2005.00247).
 *
 * @throws E_MODEL_UNSUPPORTED for an activation that is not here
 */
export function adapter(job: ParametersJob): TracedParameters {
  const { prefixes, readsStream, activation } = job as BottleneckJob;
  if (!activationNames.includes(activation as Activation)) {
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `non_linearity ${activation}` });
  }
  const unused = new Set(Object.values(prefixes));
  return {
    added: Object.values(prefixes).flatMap((prefix) =>
      ["adapter_down.0", "adapter_up"].flatMap((module) =>
        ["weight", "bias"].map((name) => `${prefix}.${module}.${name}`),
      ),
    ),

    weightsFrom(found) {
      const weights = (name: string): tf.Tensor => found(name);
      const sublayerOf = (layer: number, part: LayerPart): Sublayer | undefined => {
        const prefix = prefixes[`${layer}.${part}`];
        if (prefix === undefined) return undefined;
        unused.delete(prefix);
        return (output_MD, join) => {
          const x_MD = readsStream ? join(output_MD) : output_MD;
          const narrow = linear(weights, `${prefix}.adapter_down.0`, x_MD, true);
          const active = activate(activation as Activation, narrow);
          return join(tf.add(linear(weights, `${prefix}.adapter_up`, active, true), output_MD));
        };
      };
      return Object.assign(weights, { sublayerOf });
    },

    checkAllUsed(modelType) {
      const [prefix] = unused;
      if (prefix === undefined) return;
      const problem = `this ${modelType} model has no layer for ${prefix}`;
      throw new LockstepError("E_ADAPTER_TARGET", { problem });
    },
  };
}
