export type { ChatMessage } from "./chat-template.js";
export { builtInDatasets, readDocuments } from "./datasets/index.js";
export { cleanText, type Document, splitDocuments } from "./documents.js";
export { evaluationBatches } from "./evaluation.js";
export { checkSequenceLength, type PackedBlocks, packDocuments } from "./pack.js";
export { createTrainingPlan, type TrainingPlan, type TrainingPlanOptions } from "./plan.js";
export {
  type DatasetSpec,
  loadTextDataset,
  type PreparationReport,
  type PreparedBlocks,
  type PrepareOptions,
  prepareBlocks,
  type TextDataset,
} from "./prepare.js";
export { loadTokenizer, type Tokenizer } from "./tokenizer.js";
