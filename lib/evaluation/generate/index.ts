export type { Continuation } from "./continuation.js";
export { Generator } from "./generator.js";
export { type GenerationOptions, generationDefaults, readGenerationConfig } from "./options.js";
