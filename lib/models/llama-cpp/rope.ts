import type { DecoderConfig } from "#lib/models/decoder/config";
import type { Rotary } from "#lib/models/rotary-config";
import { float32, type LlamaCppModel, type Refuse, text, uint32 } from "./kind.js";

type RopeParts = Pick<LlamaCppModel, "metadata" | "vectors">;

/** llama.cpp's own, which its converter does not write either. */
const yarnDefaults = { betaFast: 32, betaSlow: 1 };

/**
 * How llama.cpp turns by these positions, after its convert_hf_to_gguf.py.
 *
 * @param local the one of layers with a window, where it is another (Gemma 3)
 */
export function ropeMetadata(
  rotary: Rotary,
  local: Rotary | undefined,
  config: Pick<DecoderConfig, "headDim" | "maxPositions">,
  refuse: Refuse,
): RopeParts {
  const scaled = scaling(rotary, config, refuse);
  if (local !== undefined && local.type !== "default") {
    refuse(`its local layers have rotary positions of the type ${local.type}`);
  }
  return {
    metadata: {
      "rope.dimension_count": uint32(rotary.width),
      "rope.freq_base": float32(rotary.theta),
      ...(local === undefined ? {} : { "rope.freq_base_swa": float32(local.theta) }),
      ...scaled.metadata,
    },
    vectors: scaled.vectors,
  };
}

function scaling(
  rotary: Rotary,
  { maxPositions }: Pick<DecoderConfig, "maxPositions">,
  refuse: Refuse,
): RopeParts {
  const named = (type: string): { readonly "rope.scaling.type": ReturnType<typeof text> } => ({
    "rope.scaling.type": text(type),
  });
  switch (rotary.type) {
    case "default":
      return { metadata: {}, vectors: {} };
    case "linear":
      return {
        metadata: { ...named("linear"), "rope.scaling.factor": float32(rotary.factor) },
        vectors: {},
      };
    case "llama3":
      return { metadata: {}, vectors: { "rope_freqs.weight": llama3Divisors(rotary) } };
    case "yarn": {
      const usual = 0.1 * Math.log(rotary.factor) + 1;
      const isUsual =
        rotary.betaFast === yarnDefaults.betaFast &&
        rotary.betaSlow === yarnDefaults.betaSlow &&
        rotary.truncate &&
        Math.abs(rotary.attentionFactor - usual) < 1e-6;
      if (!isUsual) refuse("its yarn positions have other factors than the usual ones");
      return {
        metadata: {
          ...named("yarn"),
          "rope.scaling.factor": float32(rotary.factor),
          "rope.scaling.original_context_length": uint32(rotary.originalMaxPositions),
        },
        vectors: {},
      };
    }
    case "longrope":
      return {
        metadata: {
          "rope.scaling.original_context_length": uint32(rotary.originalMaxPositions),
          "rope.scaling.attn_factor": float32(rotary.attentionFactor),
        },
        vectors: {
          "rope_factors_long.weight": Float32Array.from(rotary.longFactor),
          "rope_factors_short.weight": Float32Array.from(rotary.shortFactor),
        },
      };
    case "dynamic":
      return refuse(
        `its rotary positions change with the length of the text beyond ${maxPositions} (dynamic)`,
      );
  }
}

/** By what each frequency is divided: transformers' `_compute_llama3_parameters`. */
function llama3Divisors(rotary: Rotary & { readonly type: "llama3" }): Float32Array {
  const { theta, width, factor, originalMaxPositions: original } = rotary;
  const { lowFrequencyFactor: low, highFrequencyFactor: high } = rotary;
  return Float32Array.from({ length: width / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / width);
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return factor;
    const smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
