// Writes docs/models.md from the architectures of the build and the reference cases of the tests.
//
//   node scripts/models-doc.mjs [--check]
//
// --check  writes nothing and fails when the page differs from its sources

import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadBuilt, writePage } from "./generated-page.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const casesFolder = "tests/fixtures/models";
/** Base models without a head, with vectors of texts. */
const embeddingsFolder = "tests/fixtures/embeddings";
const readJson = (file) => JSON.parse(readFileSync(file, "utf8"));

const heads = {
  "causal-lm": "causal LM",
  "sequence-classification": "sequence classification",
  "feature-extraction": "none (embeddings)",
};

/** Names of the tensors in a safetensors file. */
function tensorNames(file) {
  const descriptor = openSync(file, "r");
  try {
    const length = Buffer.alloc(8);
    readSync(descriptor, length, 0, 8, 0);
    const header = Buffer.alloc(Number(length.readBigUInt64LE()));
    readSync(descriptor, header, 0, header.length, 8);
    return Object.keys(JSON.parse(header.toString())).filter((name) => name !== "__metadata__");
  } finally {
    closeSync(descriptor);
  }
}

function readCase(name) {
  const directory = join(root, casesFolder, name);
  const config = readJson(join(directory, "config.json"));
  const reference = readJson(join(directory, "case.json"));
  const tensors = tensorNames(join(directory, "expected.safetensors"));
  const numGradients = tensors.filter((tensor) => tensor.startsWith("grad.")).length;
  const compared = [
    ...(reference.loss === undefined ? [] : ["loss"]),
    ...(tensors.includes("logits") ? ["logits"] : []),
    ...tensors.filter((tensor) => tensor !== "logits" && !tensor.startsWith("grad.")),
    ...(numGradients === 0 ? [] : [`${numGradients} gradients`]),
    ...(reference.greedy === undefined
      ? []
      : [`${reference.greedy.continuation.length} greedy tokens`]),
  ];
  return { name, config, compared, transformers: reference.transformers };
}

function readEmbeddings(name) {
  const directory = join(root, embeddingsFolder, name);
  const config = readJson(join(directory, "config.json"));
  const texts = readJson(join(directory, "texts.json"));
  const kinds = Object.keys(texts[0]).filter((key) => key !== "tokens");
  return {
    name: `embeddings/${name}`,
    config,
    compared: kinds.map((kind) => `${texts.length} ${kind} vectors`),
    transformers: config.transformers_version,
  };
}

/** What of a configuration changes the arithmetic. */
function features(config) {
  const { keys } = modelFacts[config.model_type];
  const first = (names) => names.map((name) => config[name]).find((value) => value !== undefined);
  const [layers, queryHeads, width] = [first(keys.layers), first(keys.heads), first(keys.width)];
  const keyHeads = config.num_key_value_heads ?? queryHeads;
  const rotary = config.rope_parameters ?? config.rope_scaling ?? {};
  // Gemma 3 has one set of parameters for each kind of layer.
  const ropeTypes = [rotary, ...Object.values(rotary)]
    .map((each) => each?.rope_type ?? each?.type)
    .filter((type) => typeof type === "string" && type !== "default");
  const partial = rotary.partial_rotary_factor ?? config.partial_rotary_factor ?? 1;
  const window = config.use_sliding_window === false ? null : config.sliding_window;
  return [
    `${layers} layers`,
    keyHeads === queryHeads ? `${queryHeads} heads` : `${queryHeads}/${keyHeads} heads`,
    ...(config.head_dim !== undefined && config.head_dim !== width / queryHeads
      ? [`head_dim ${config.head_dim}`]
      : []),
    ...[...new Set(ropeTypes)].map((type) => `rope ${type}`),
    ...(partial === 1 ? [] : [`${partial} of a head rotated`]),
    ...(typeof window === "number" ? [`window ${window}`] : []),
    ...(config.attention_bias === true ? ["attention bias"] : []),
    ...(config.mlp_bias === true ? ["MLP bias"] : []),
    ...((config.attn_logit_softcapping ?? null) === null ? [] : ["attention softcap"]),
    ...((config.final_logit_softcapping ?? null) === null ? [] : ["logit softcap"]),
    ...(config.tie_word_embeddings === false ? ["untied"] : []),
    ...((config.problem_type ?? null) === null ? [] : [config.problem_type.replaceAll("_", " ")]),
  ].join(", ");
}

function filesBelow(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return path === "tests/fixtures" ? [] : filesBelow(path);
    return [path];
  });
}

/** Tests that read the cases. */
const testFiles = filesBelow("tests")
  .filter((path) => path.endsWith(".test.ts") && !path.startsWith("tests/laws/"))
  .filter((path) => /fixtures\/(models|embeddings)/.test(readFileSync(join(root, path), "utf8")))
  .sort();

const { createModel } = await loadBuilt("lib/models/index");
const { modelFacts } = await loadBuilt("lib/models/facts");
const { modelDropoutKinds } = await loadBuilt("lib/core/dropout");
const modelTypes = Object.keys(modelFacts).toSorted();
const namesIn = (folder) =>
  existsSync(join(root, folder)) ? readdirSync(join(root, folder)).sort() : [];
const cases = [
  ...namesIn(casesFolder).map(readCase),
  ...namesIn(embeddingsFolder).map(readEmbeddings),
];
const rows = cases.map(({ name, config, compared, transformers }) => {
  const { modelType, task } = createModel(config);
  return { name, modelType, task, features: features(config), compared, transformers };
});

/** Cases of a type with a head. */
const countOf = (modelType, task) =>
  rows.filter((row) => row.modelType === modelType && row.task === task).length;
let overview = "";
for (const modelType of modelTypes) {
  const counts = Object.keys(heads).map((task) => countOf(modelType, task) || "-");
  overview += `| \`${modelType}\` | ${counts.join(" | ")} |\n`;
}

const code = (names) => names.map((name) => `\`${name}\``).join(", ");
let facts = "";
for (const modelType of modelTypes) {
  const of = modelFacts[modelType];
  const cells = [
    of.isEncoder ? "both sides" : "the tokens before",
    `${code([of.keys.positions[0]])}, ${of.defaults.positions}${of.positionsFollowPadding ? ", less those up to the padding's" : ""}`,
    of.defaults.padTokenId ?? "none",
    of.tiesHead ? "yes" : "no",
    of.adapterTargets.length === 0 ? "to be named" : code(of.adapterTargets),
  ];
  facts += `| \`${modelType}\` | ${cells.join(" | ")} |\n`;
}

let dropouts = "";
for (const modelType of modelTypes) {
  const of = modelFacts[modelType].dropouts;
  const cells = modelDropoutKinds.map((kind) =>
    of[kind] === undefined ? "-" : `${code(of[kind].keys)}, ${of[kind].rate}`,
  );
  dropouts += `| \`${modelType}\` | ${cells.join(" | ")} |\n`;
}

let table = "";
for (const modelType of modelTypes) {
  for (const [task, head] of Object.entries(heads)) {
    for (const row of rows.filter((each) => each.modelType === modelType && each.task === task)) {
      table += `| \`${modelType}\` | ${head} | ${row.name} | ${row.features} | ${row.compared.join(", ")} | ${row.transformers} |\n`;
    }
  }
}
const text = `# Models

A model is made from the \`model_type\` and \`architectures\` of its \`config.json\`. A type that is not below, or
an option that changes the arithmetic and is not computed here, is the error \`E_MODEL_UNSUPPORTED\`, which
names it.

- **Heads.** \`...ForCausalLM\` and \`...LMHeadModel\` predict the next token. \`...ForSequenceClassification\` has
  logits of \`num_labels\` classes with the loss of \`problem_type\`: decoders read them at a row's last token that
  is not \`pad_token_id\`, encoders at the first token. A class that ends in \`Model\` has no head: its hidden
  states become vectors of texts (\`lib/evaluation/embed\`). Training takes causal models and
  classifiers with one label a row.
- **Rotary positions.** \`rope_parameters\` as transformers 5 writes them, \`rope_theta\` and \`rope_scaling\` as 4
  did; types default, linear, dynamic, llama3, yarn and longrope.
- **Padding.** The embedding of \`pad_token_id\` gets no gradient from the input, as in transformers.
- **Dropout** is that of transformers' code, in training only, at the rates of \`config.json\` or of the key
  [\`dropout\`](configuration.md#dropout); attention drops its probabilities.
- **Tokens.** tokenizer.json and what stands beside it, as transformers 5 reads them: \`added_tokens_decoder\`,
  \`added_tokens.json\`, special tokens by role and in lists. With a tokenizer.json, \`add_bos_token\` has no effect: its
  post-processor says what stands around a text. A token with an id that is not the next free one is the error
  \`E_TOKENIZER_INVALID\`; one that a text holds and the model has no embedding for, \`E_TOKEN_OUT_OF_VOCABULARY\`.
- **Precision.** In bf16 and fp16, matrix products round; norms, softmax, rotary angles, GELU and losses are float32 inside.

Numbers of reference cases by head:

| type | ${Object.values(heads).join(" | ")} |
|---|---|---|---|
${overview}
What holds of a type (\`facts.ts\` in its folder of \`lib/models\`), numbers where its config.json says nothing:

| type | a token sees | positions | \`pad_token_id\` | \`tie_word_embeddings\` | adapters go to |
|---|---|---|---|---|---|
${facts}
Keys of \`config.json\` that dropout is read from, the first that is there, and the rate where none is:

| type | ${modelDropoutKinds.join(" | ")} |
|---|---|---|---|---|
${dropouts}
A case is a small model with random weights in \`${casesFolder}\`, with what transformers computes for it in
float32. \`bin/lockstep verify-model\` computes the same through the traced graph and compares every tensor within
1e-4 of its norm; \`scripts/make_case.py MODEL_DIR\` makes such a case from any model.
${testFiles.length === 0 ? "" : `Run by ${testFiles.map((file) => `\`${file}\``).join(", ")}. `}This page is written by \`node scripts/models-doc.mjs\`.

| type | head | case | with | compared | transformers |
|---|---|---|---|---|---|
${table}`;
writePage("models.md", text, "models-doc.mjs");
