export type { BadRowPolicy } from "./bad-rows.js";
export type { ChatMessage } from "./chat-template.js";
export { findSources } from "./dataset-info.js";
export { builtInDatasets } from "./datasets/index.js";
export { cleanText } from "./documents.js";
export { evaluationBatches } from "./evaluation.js";
export { type DataSource, readExamples } from "./examples.js";
export { type DatasetFormat, datasetFormats } from "./formats/index.js";
export { checkSequenceLength, type PackedBlocks, packDocuments } from "./pack.js";
export {
  createTrainingPlan,
  type SamplingStrategy,
  type TrainingPlan,
  type TrainingPlanOptions,
} from "./plan.js";
export {
  type DatasetSpec,
  type PreparationReport,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
} from "./prepare.js";
export { type ReadText, readTexts, type TextColumns } from "./texts.js";
export type { TrainingRows } from "./rows.js";
export { rowsSha256 } from "./rows-digest.js";
export { loadTokenizer, type Tokenizer } from "./tokenizer.js";
export { hasTokenizer } from "./tokenizer-file.js";
