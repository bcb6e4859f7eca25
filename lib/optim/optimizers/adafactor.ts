import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import {
  type AdafactorKernels,
  adafactorScratchBytes,
  type AdafactorSettings,
  type AdafactorSlot,
  isFactored,
  meansOfSquares,
  normalisedUpdate,
  roundUp8,
} from "./adafactor-statistics.js";
import { leastEpsilon } from "./adam-family.js";
import { defineOptimizer } from "./kind.js";
import { matricesOf } from "./matrix-segments.js";
import type { TensorWise } from "./tensor-wise.js";

const tensorWise: TensorWise<AdafactorSettings, AdafactorSlot, AdafactorKernels> = {
  states(shape): Record<string, number> {
    const { numMatrices, numRows, numColumns } = matricesOf(shape);
    if (!isFactored(shape)) return { second_moment: numColumns };
    return {
      second_moment_rows: numMatrices * numRows,
      second_moment_columns: numMatrices * numColumns,
    };
  },
  passes: [meansOfSquares, normalisedUpdate],
  scratchBytes: adafactorScratchBytes,
  update(kernels, { beta1, weightDecay }, { decays }) {
    return ({ masters, states, gradient, numElements }, [clipDivisor = 1, learningRate = 0]) => {
      const negativeDecay = decays ? -learningRate * weightDecay : 0;
      kernels.setAdafactorStep(clipDivisor, learningRate, negativeDecay, beta1, 1 - beta1);
      // Without a first moment the update is its own.
      const moment = beta1 === 0 ? gradient : states.first_moment;
      kernels.adafactorStep(masters, moment, gradient, roundUp8(numElements));
    };
  },
};

/**
 * Adafactor (Shazeer and Stern, arXiv 1804.04235) in the order of operations of transformers.optimization.Adafactor,
 * float32, sums float64: of a matrix only means of squared gradients over rows and over columns are kept. As
 * transformers' Trainer sets it, the rate is that of the schedule.
 */
export const adafactor = defineOptimizer({
  name: "adafactor",
  names: ["adafactor"],
  fields: {},
  args: {
    scale_parameter: z.boolean().default(false),
    clip_threshold: z.number().positive().default(1),
    decay_rate: z.number().max(0).default(-0.8),
    beta1: z.number().min(0).lt(1).default(0),
    eps1: z.number().min(leastEpsilon).default(1e-30),
    eps2: z.number().min(0).default(1e-3),
    relative_step: z.boolean().default(false),
    warmup_init: z.boolean().default(false),
  },
  settings(config, args): AdafactorSettings {
    for (const name of ["relative_step", "warmup_init"] as const) {
      if (!args[name]) continue;
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: `${name} in optim_args, and learning_rate`,
        reason:
          "the rate is that of learning_rate and lr_scheduler_type, not one of Adafactor's own",
      });
    }
    return {
      scaleParameter: args.scale_parameter,
      clipThreshold: args.clip_threshold,
      decayRate: args.decay_rate,
      squareEpsilon: args.eps1,
      scaleEpsilon: args.eps2,
      beta1: args.beta1,
      weightDecay: config.weight_decay,
    };
  },
  states: ({ beta1 }) => (beta1 === 0 ? [] : ["first_moment"]),
  tensorWise,
});
