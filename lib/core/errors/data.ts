import { entry } from "./define.js";

/** Failures of data sets, tokenizers and the plan that is made from them. */
export const dataErrors = {
  E_DATASET_UNKNOWN: entry<{ dataset: string; known: readonly string[] }>(
    (d) =>
      `The dataset ${JSON.stringify(d.dataset)} is neither a built-in data set (${d.known.join(", ")}), nor an entry of dataset_dir's dataset_info.json, nor a file, a directory or a pattern that matches one.`,
    "Lockstep does not download data from a hub: give the path of text, JSON, CSV, TSV or Parquet files, or set dataset_dir.",
  ),
  E_DATASET_FORMAT: entry<{ file: string; known: readonly string[] }>(
    (d) => `The data file ${d.file} does not end in one of ${d.known.join(", ")}.`,
    "Rename the file after its content, or convert it; in Python a data set has to_json and to_parquet.",
  ),
  E_DATASET_DIRECTORY: entry<{ directory: string; problem: string }>(
    (d) => `${d.directory}: ${d.problem}.`,
    "Name the files or a pattern instead, or the part in an entry (path, split, name); docs/data.md shows how directories are read.",
  ),
  E_DATASET_INFO: entry<{ file: string; problem: string }>(
    (d) => `${d.file}: ${d.problem}.`,
    "Correct the entry (docs/data.md shows one), or name the data file itself as dataset.",
  ),
  E_DATASET_EMPTY: entry<{ split: string; source: string }>(
    (d) => `The ${d.split} split of ${d.source} holds no row that can be used.`,
    "Check the files: blank texts are left out, and a table needs rows below its header.",
  ),
  E_DATASET_TOO_SMALL: entry<{ split: string; numTokens: number }>(
    (d) =>
      `The ${d.split} split holds ${d.numTokens} token(s), and a row needs two: the first one predicts the second.`,
    "Give more data; a data set of any size from there on makes at least one step an epoch.",
  ),
  E_DATASET_SPLIT: entry<{ fraction: number }>(
    (d) =>
      `The validation split is at least 0 and less than 1 (of one text), or a whole number of examples, not ${d.fraction}.`,
    "Set the validation split to a fraction such as 0.1, or name validation files.",
  ),
  E_DATA_TOO_LARGE: entry<{ file: string; what: string; sizeBytes: number; limitBytes: number }>(
    (d) =>
      `The ${d.what} of ${d.file} takes ${d.sizeBytes} bytes or more, over the limit of ${d.limitBytes}.`,
    "Cut it into smaller documents or files.",
  ),
  E_DATA_INVALID_UTF8: entry<{
    file: string;
    line?: number;
    byteOffset: number;
    encoding: string;
  }>(
    (d) =>
      `${d.line === undefined ? `The file ${d.file}` : `${d.file}:${d.line}`} is not valid UTF-8: a wrong byte is at offset ${d.byteOffset} (it may be ${d.encoding}).`,
    "Convert the file to UTF-8, for example with iconv -f ENCODING -t UTF-8.",
  ),
  E_DATA_INVALID_JSON: entry<{ file: string; line: number; column: number; problem: string }>(
    (d) => `${d.file}:${d.line}:${d.column}: ${d.problem}.`,
    "Correct the row: a .jsonl file has one whole object a line, a .json file an array of objects.",
  ),
  E_DATA_GZIP: entry<{ file: string; problem: string }>(
    (d) => `The compressed file ${d.file} is damaged: ${d.problem}.`,
    "Take the file again from where it came, and check it with gzip -t.",
  ),
  E_DATA_CSV: entry<{ file: string; line: number; problem: string }>(
    (d) => `${d.file}:${d.line}: ${d.problem}.`,
    'Quote fields that hold separators, quotes or line ends, and double each quote inside: "say ""yes""".',
  ),
  E_DATA_PARQUET: entry<{ file: string; problem: string }>(
    (d) => `The Parquet file ${d.file} cannot be read: ${d.problem}.`,
    "Write the file again, for example with pyarrow and the codec snappy, gzip or zstd.",
  ),
  E_DATA_TOO_MANY_COLUMNS: entry<{ file: string; numColumns: number; limit: number }>(
    (d) => `${d.file} has ${d.numColumns} columns; at most ${d.limit} are read.`,
    "Keep the columns of the data set's format (see docs/data.md) and drop the others.",
  ),
  E_DATA_FORMAT_UNKNOWN: entry<{
    place: string;
    found: string;
    known: readonly string[];
    advice?: string;
  }>(
    (d) =>
      `${d.place}: a row with ${d.found} is in none of the formats ${d.known.join(", ")}${d.advice === undefined ? "" : `; ${d.advice}`}.`,
    "Say which columns hold what, such as columns: {text: review, label: sentiment} or {prompt: question, completion: answer}; docs/data.md shows the formats.",
  ),
  E_DATA_COLUMNS: entry<{ place: string; problem: string; columns: readonly string[] }>(
    (d) =>
      `${d.place}: ${d.problem}; the columns are ${d.columns.slice(0, 20).join(", ") || "none"}.`,
    "Correct columns: on the left stand names of docs/data.md, on the right the data's own.",
  ),
  E_DATA_ROW_FORMAT: entry<{ place: string; format: string; problem: string }>(
    (d) => `${d.place}: not a row of the format ${d.format}: ${d.problem}.`,
    "Correct the row, set dataset_format, or set on_bad_row: skip to leave such rows out.",
  ),
  E_DATA_NO_ANSWER: entry<{ place: string; what?: string }>(
    (d) => `${d.place}: the row has no ${d.what ?? "answer"} to learn from.`,
    "Add it, or set on_bad_row: skip to leave such rows out.",
  ),
  E_DATA_NOTHING_SUPERVISED: entry<{ place: string; numTokens: number; maxLength: number }>(
    (d) =>
      `${d.place}: none of the first ${d.maxLength} of the row's ${d.numTokens} tokens is to be learnt: a loss over it would be 0/0.`,
    "Raise max_length if the prompt fills it, check the weights of the messages, or set on_bad_row: skip.",
  ),
  E_DATA_NO_END_TOKEN: entry<{ place: string }>(
    (d) =>
      `${d.place}: the chat template writes no end token after an answer, so the model would never learn to stop.`,
    "Use a template that ends each answer with a special token such as <|im_end|> or the end-of-sequence token.",
  ),
  E_DATA_TOO_MANY_BAD_ROWS: entry<{ numBad: number; numRows: number; listed: readonly string[] }>(
    (d) =>
      `${d.numBad} of ${d.numRows} rows cannot be used, more than half: ${d.listed.map((each) => each.replace(/\.$/, "")).join("; ")}.`,
    "Check dataset_format and the columns; on_bad_row: skip is for a few broken rows.",
  ),
  E_DATA_LONE_SURROGATE: entry<{ place: string; where: string; code: string; character: number }>(
    (d) =>
      `${d.place}: ${d.where} holds ${d.code} alone at character ${d.character}: half of a character (a surrogate without its pair), which no tokenizer takes.`,
    "Write the whole character: a text that was cut in the middle of an emoji leaves halves, and U+DC80 to U+DCFF stand for bytes that are not UTF-8. Or set on_bad_row: skip.",
  ),
  E_CHAT_TEMPLATE_SECOND_BOS: entry<{ place: string; token: string }>(
    (d) => `${d.place}: the text begins with ${JSON.stringify(d.token)} twice.`,
    "Take the beginning token out of the chat template or out of the text; it is added once.",
  ),
  E_LABELS_INVALID: entry<{ place: string; problem: string }>(
    (d) => `${d.place}: the labels of the rows to train on cannot be learnt: ${d.problem}.`,
    "Correct the labels, or name the column that holds them under columns.",
  ),
  E_LABEL_UNSEEN: entry<{ place: string; label: string; known: readonly string[] }>(
    (d) =>
      `${d.place}: the label ${JSON.stringify(d.label)} does not occur in training (${d.known.join(", ")}).`,
    "Correct the label, or add training rows with it.",
  ),
  E_TEXT_UNUSABLE: entry<{ place: string; problem: string }>(
    (d) => `${d.place} cannot be classified: ${d.problem}.`,
    "Name the columns of the texts with --text-column and --pair-column, and leave texts without a token out.",
  ),
  E_TOKENIZER_INVALID: entry<{ file: string; problem: string }>(
    (d) => `The tokenizer file ${d.file} cannot be used: ${d.problem}.`,
    "Take the tokenizer files of the model again from where it came.",
  ),
  E_TOKENIZER_MISSING: entry<{ directory: string; problem: string }>(
    (d) => `${d.directory} has no tokenizer.json, ${d.problem}`,
    "Only tokenizer.json is read, the file of the tokenizers library, which most models on the hub have.",
  ),
  E_CHAT_TEMPLATE_MISSING: entry<{ directory: string }>(
    (d) =>
      `The model directory ${d.directory} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json).`,
    "Use plain text, or a model that was tuned for chat.",
  ),
  E_CHAT_TEMPLATE_FAILED: entry<{ file: string; problem: string; place?: string }>(
    (d) =>
      `${d.place === undefined ? "The" : `${d.place}: the`} chat template of ${d.file} did not render: ${d.problem}.`,
    "Check that the messages have the roles and the order that the template asks for, or set on_bad_row: skip to leave such rows out.",
  ),
  E_DATA_NOT_IN_TEMPLATE: entry<{ place: string; file: string; what: string }>(
    (d) =>
      `${d.place}: ${d.what} would be dropped: nothing of it is in the text that the chat template of ${d.file} writes.`,
    "Use a template that writes it, take it out of the data, or set on_bad_row: skip to leave such rows out.",
  ),
  E_DATA_BLANK_ANSWER: entry<{ place: string; message: number }>(
    (d) =>
      `${d.place}: what would be learnt of message ${d.message} is nothing but blanks and end tokens.`,
    "Give the answer a text or a call that the chat template writes, give it the weight 0, or set on_bad_row: skip.",
  ),
  E_TOKEN_OUT_OF_VOCABULARY: entry<{
    document: string;
    tokenId: number;
    token: string;
    vocabSize: number;
  }>(
    (d) =>
      `The tokenizer gave token ${d.tokenId}, ${JSON.stringify(d.token)}, in ${d.document}, but the model's vocabulary has ${d.vocabSize} tokens.`,
    "The tokenizer does not belong to this model, or has tokens that the model has no embeddings for: take both from one directory, or leave such tokens out.",
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
  E_TASK_TOO_LARGE: entry<{
    what: string;
    amount: number;
    limit: number;
    unit: string;
    parts: string;
    change: string;
  }>(
    (d) =>
      `${d.what} takes ${d.amount} ${d.unit} in one message to a worker, which holds at most ${d.limit}: ${d.parts}. What makes it smaller: ${d.change}.`,
    "Change what the message names; a lease travels in one piece.",
  ),
};
