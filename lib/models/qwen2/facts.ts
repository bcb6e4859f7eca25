import { decoderFacts } from "#lib/models/decoder/facts";

export const qwen2 = decoderFacts({ modelType: "qwen2", className: "Qwen2", maxPositions: 32_768 });
