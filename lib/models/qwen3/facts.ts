import { decoderFacts } from "#lib/models/decoder/facts";

export const qwen3 = decoderFacts({ modelType: "qwen3", className: "Qwen3", maxPositions: 32_768 });
