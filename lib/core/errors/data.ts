import { entry } from "./define.js";

/** Failures of data sets, tokenizers and the plan that is made from them. */
export const dataErrors = {
  E_DATASET_UNKNOWN: entry<{ dataset: string; known: readonly string[] }>(
    (d) =>
      `The dataset ${JSON.stringify(d.dataset)} is neither a built-in data set (${d.known.join(", ")}) nor a file, a directory or a pattern that matches one.`,
    "Name a built-in data set, or give the path of .txt or .jsonl files.",
  ),
  E_DATASET_FORMAT: entry<{ file: string; known: readonly string[] }>(
    (d) => `The data file ${d.file} does not end in one of ${d.known.join(", ")}.`,
    "Rename the file if its content is plain text or JSON Lines, or convert it.",
  ),
  E_DATASET_EMPTY: entry<{ split: string; source: string }>(
    (d) => `The ${d.split} split of ${d.source} holds no text.`,
    "Check the files; blank documents are dropped before training.",
  ),
  E_DATASET_TOO_SMALL: entry<{
    split: string;
    numTokens: number;
    numBlocks: number;
    neededBlocks: number;
    sequenceLength: number;
  }>(
    (d) =>
      `The ${d.split} split gives ${d.numBlocks} block(s) of ${d.sequenceLength} tokens (${d.numTokens} tokens in all), but at least ${d.neededBlocks} are needed.`,
    "Give more text, or lower sequence_length or the global batch size.",
  ),
  E_DATASET_SPLIT: entry<{ fraction: number }>(
    (d) => `The validation fraction is at least 0 and less than 1, not ${d.fraction}.`,
    "Set the validation split to a fraction such as 0.1, or name validation files.",
  ),
  E_DATA_TOO_LARGE: entry<{ file: string; what: string; sizeBytes: number; limitBytes: number }>(
    (d) =>
      `The ${d.what} of ${d.file} takes ${d.sizeBytes} bytes or more, over the limit of ${d.limitBytes}.`,
    "Cut it into smaller documents or files.",
  ),
  E_DATA_INVALID_UTF8: entry<{ file: string; byteOffset: number }>(
    (d) => `The file ${d.file} is not valid UTF-8: a wrong byte is at offset ${d.byteOffset}.`,
    "Convert the file to UTF-8, for example with iconv.",
  ),
  E_DATA_INVALID_JSON: entry<{ file: string; line: number; column: number; problem: string }>(
    (d) => `${d.file}:${d.line}:${d.column}: ${d.problem}; each line has to be one JSON object.`,
    "Correct the line; a JSON Lines file has one whole object a line.",
  ),
  E_DATA_ROW: entry<{ file: string; line: number; field: string; found: string }>(
    (d) =>
      `${d.file}:${d.line}: the row has to be an object with a string ${JSON.stringify(d.field)}, but ${d.found}.`,
    "Rename the column or correct the row.",
  ),
  E_TOKENIZER_INVALID: entry<{ file: string; problem: string }>(
    (d) => `The tokenizer file ${d.file} cannot be used: ${d.problem}.`,
    "Take the tokenizer files of the model again from where it came.",
  ),
  E_CHAT_TEMPLATE_MISSING: entry<{ directory: string }>(
    (d) =>
      `The model directory ${d.directory} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json).`,
    "Use plain text, or a model that was tuned for chat.",
  ),
  E_CHAT_TEMPLATE_FAILED: entry<{ file: string; problem: string }>(
    (d) => `The chat template of ${d.file} did not render: ${d.problem}.`,
    "Check that the messages have the roles and the order that the template asks for.",
  ),
  E_TOKEN_OUT_OF_VOCABULARY: entry<{ document: string; tokenId: number; vocabSize: number }>(
    (d) =>
      `The tokenizer gave token ${d.tokenId} in ${d.document}, but the model's vocabulary has ${d.vocabSize} tokens.`,
    "The tokenizer does not belong to this model; take both from one directory.",
  ),
  E_SEQUENCE_LENGTH: entry<{ sequenceLength: number; minimum: number; maximum: number }>(
    (d) =>
      `max_length is an integer of ${d.minimum} to ${d.maximum} tokens here, not ${d.sequenceLength}.`,
    "Choose a length within the model's context (max_position_embeddings or n_positions).",
  ),
  E_PLAN_INVALID: entry<{ name: string; value: number; expected: string }>(
    (d) => `${d.name} is ${d.value}, but has to be ${d.expected}.`,
    "Correct the batch settings; global_batch_size counts the rows of one optimizer update.",
  ),
};
