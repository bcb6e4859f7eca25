import { entry } from "./define.js";

/** Failures while a program is traced, compiled or run. */
export const graphErrors = {
  E_OP_NOT_LOWERED: entry<{ op: string }>(
    (d) => `The op ${d.op} has no lowering to a TensorFlow graph.`,
    "Write the model with ops that are lowered (lib/graph/lowerings), or add a lowering with its test.",
  ),
  E_VALUE_READ_WHILE_TRACING: entry<{ what: string }>(
    (d) =>
      `${d.what} needs the value of a tensor, but a traced tensor has none until the graph runs.`,
    "Compute the value inside the graph, or pass it in from outside.",
  ),
  E_GRAPH_DUPLICATE_NODE: entry<{ node: string }>(
    (d) => `Two nodes of one graph want the name ${d.node}.`,
    "Give every feed, variable and fetch of a program set a name of its own.",
  ),
  E_GRAPH_FUNCTION_OP: entry<{ op: string }>(
    (d) => `The op ${d.op} cannot stand in a function that XLA compiles.`,
    "Use another op, or add the name of its output to lib/graph/xla-function.ts.",
  ),
  E_GRAPH_SHAPE: entry<{ op: string; expected: string; got: string }>(
    (d) => `${d.op} expected ${d.expected} and got ${d.got}.`,
    "Check the shapes that the model passes to this op.",
  ),
  E_GRAPH_DTYPE: entry<{ op: string; expected: string; got: string }>(
    (d) => `${d.op} expected ${d.expected} and got ${d.got}.`,
    "Check the element types that the model passes to this op.",
  ),
  E_SESSION_FEED: entry<{ program: string; feed: string; expected: string; got: string }>(
    (d) => `The feed ${d.feed} of ${d.program} expected ${d.expected} and got ${d.got}.`,
    "Pass every feed of the program with its static shape and type.",
  ),
  E_SESSION_FETCH: entry<{ program: string; fetch: string; expected: string; got: string }>(
    (d) => `The fetch ${d.fetch} of ${d.program} expected ${d.expected} and got ${d.got}.`,
    "Give only arrays that have the static size and type of a fetch of the program.",
  ),
  E_SESSION_FAILED: entry<{ program: string; message: string }>(
    (d) => `TensorFlow failed while running ${d.program}: ${d.message}`,
    "If memory ran out, lower per_device_train_batch_size or max_length.",
  ),
  E_ENGINE_NOT_INSTALLED: entry<{ message: string }>(
    (d) => `The TensorFlow engine cannot be loaded: ${d.message}`,
    "Run `npx lockstep setup` in a project that installed the package, or `node scripts/setup.mjs` in a checkout.",
  ),
  E_ENGINE_ENVIRONMENT: entry<{ variable: string; value: string; expected: string }>(
    (d) => `The environment's ${d.variable} is ${d.value}; expected ${d.expected}.`,
    "Unset it: the engine uses what the processor has. Set, it keeps a newer processor to the instructions of an older one.",
  ),
  E_MODEL_CONFIG: entry<{ model: string; key: string; expected: string; got: string }>(
    (d) => `The ${d.model} configuration expected ${d.key} to be ${d.expected} and got ${d.got}.`,
    "Check config.json in the model directory.",
  ),
  E_MODEL_UNSUPPORTED: entry<{ what: string }>(
    (d) => `${d.what} changes the arithmetic of the model and is not supported.`,
    "Use a model without this option.",
  ),
  E_MODEL_TASK: entry<{ model: string; modelType: string; task: string; expected: string }>(
    (d) => `${d.model} is a ${d.task} model (${d.modelType}); expected one for ${d.expected}.`,
    "TextGenerator takes causal-lm models, TextClassifier sequence-classification ones, TextEmbedder the others.",
  ),
  E_MODEL_TENSOR_MISSING: entry<{ tensor: string; expectedShape: string; got: string }>(
    (d) =>
      `The model needs a tensor ${d.tensor} of shape ${d.expectedShape}; the checkpoint has ${d.got}.`,
    "Check that config.json and the weights belong to the same model.",
  ),
  E_MODEL_TENSOR_UNKNOWN: entry<{ tensor: string; model: string }>(
    (d) => `The checkpoint has a tensor ${d.tensor} that a ${d.model} model does not use.`,
    "Check that config.json and the weights belong to the same model.",
  ),
  E_GENERATION_CONFIG: entry<{ file: string; key: string; expected: string; got: string }>(
    (d) => `${d.file} expected ${d.key} to be ${d.expected} and got ${d.got}.`,
    "Correct the value, or remove the key to generate without it.",
  ),
  E_GENERATION_TOO_LONG: entry<{ promptTokens: number; maxNewTokens: number; maxLength: number }>(
    (d) =>
      `A prompt of ${d.promptTokens} tokens and ${d.maxNewTokens} new ones do not fit into ${d.maxLength} tokens.`,
    "Shorten the prompt or ask for fewer new tokens.",
  ),
  E_CASE_INVALID: entry<{ file: string; problem: string }>(
    (d) => `${d.file} is not a case to verify: ${d.problem}.`,
    "Make the case with scripts/make_case.py MODEL_DIR.",
  ),
  E_SEQUENCE_TOO_LONG: entry<{ sequenceLength: number; maxLength: number }>(
    (d) =>
      `Sequences of ${d.sequenceLength} tokens are longer than the model's ${d.maxLength} positions.`,
    "Lower max_length.",
  ),
};
