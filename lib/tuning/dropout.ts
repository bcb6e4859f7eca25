import type { DropoutJob } from "#lib/core/dropout";
import type { GraphTensor } from "#lib/graph/builder";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import type { Dropout } from "#lib/models/index";

/**
 * What one traced forward pass drops; places are numbered as the model asks for them.
 *
 * @param coordinates int32 [3]: step, gradient group and micro-batch that are computed
 * @returns undefined where the job drops nothing
 */
export function passDropout(
  job: DropoutJob | undefined,
  coordinates: GraphTensor | undefined,
): Dropout | undefined {
  if (job === undefined || coordinates === undefined) return undefined;
  const { seed, rates } = job;
  const fed = symbolicTensor(coordinates);
  let numSites = 0;
  return {
    sourceOf(kind) {
      const rate = rates[kind] ?? 0;
      return rate === 0 ? undefined : { rate, coordinates: fed, seed, site: numSites++ };
    },
  };
}
