export { maxListedExamples } from "./bad-examples.js";
export { type ChatMessage, today } from "./chat-template.js";
export { findSources } from "./dataset-info.js";
export { refuseSecondBeginning } from "./document-tokens.js";
export { evaluationBatches } from "./evaluation.js";
export { type DataSource, readExamples, sourceFiles } from "./examples.js";
export { DataLedger, type SourceCount } from "./ledger.js";
export { type LengthFigures, lengthFigures } from "./length-figures.js";
export type { DataObserver } from "./observer.js";
export { checkSequenceLength } from "./sequence-length.js";
export { createMixedPlan, type PlanPart } from "./mixed-plan.js";
export { createTrainingPlan, type TrainingPlan } from "./plan.js";
export {
  type DatasetSpec,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
} from "./prepare.js";
export type { PreparationReport } from "./prepared-rows.js";
export {
  isInSide,
  type PreviewPiece,
  type PreviewRow,
  previewRow,
  rowsOfPlace,
  type Split,
} from "./preview.js";
export { type ReadText, readTexts } from "./texts.js";
export type { TrainingRows } from "./rows.js";
export { rowsSha256 } from "./rows-digest.js";
export { loadTokenizer, type Tokenizer } from "./tokenizer.js";
export { checkVocabulary } from "./vocabulary.js";
export { hasTokenizer } from "./tokenizer-file.js";
