export type { Continuation } from "./continuation.js";
export {
  Generator,
  type GeneratorOptions,
  type TextHooks,
} from "./generator.js";
export { type GenerationOptions, generationDefaults, readGenerationConfig } from "./options.js";
