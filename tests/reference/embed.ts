/**
 * Vectors of some sentences, for compare_embeddings.py beside this file.
 *
 * node dist/tests/reference/embed.js MODEL_DIR OUT.json
 */
import { writeFileSync } from "node:fs";
import { openModel } from "#run/open-model";
import { loadTokenizer } from "#lib/data/index";
import { TextEmbedder } from "#lib/evaluation/embed/index";

const sentences = [
  "A man is eating food.",
  "The girl carries a baby through the old town, and nobody asks where she is going.",
  "机器学习正在改变世界。",
  "for (let i = 0; i < n; i++) total += values[i];",
  "ok 👍",
];

const [directory, out] = process.argv.slice(2);
if (directory === undefined || out === undefined) {
  process.stderr.write("usage: embed.js MODEL_DIR OUT.json\n");
  process.exit(2);
}
const tokenizer = await loadTokenizer(directory);
const { model, readWeight, close } = await openModel(directory);
const embedder = await TextEmbedder.create({ model, readWeight, maxLength: 128, batchSize: 4 });
const tokens: Int32Array[] = [];
for (const sentence of sentences) {
  tokens.push(await tokenizer.encode(sentence, { addSpecialTokens: true }));
}
const vectors = embedder.embed(tokens);
embedder.close();
await close();
const rows = sentences.map((sentence, index) => ({
  sentence,
  tokens: [...(tokens[index] ?? [])],
  vector: [...(vectors[index] ?? [])],
}));
writeFileSync(out, JSON.stringify(rows));
