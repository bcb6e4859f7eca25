export { type Continuation, Generator } from "./generator.js";
export { type GenerationOptions, generationDefaults, readGenerationConfig } from "./options.js";
