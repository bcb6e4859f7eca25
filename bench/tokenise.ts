/**
 * Megabytes of text that our tokenizer takes a second on one thread: SmolLM2's on the State of the Union
 * addresses, ten times over (100 MB), one call for each time.
 *
 * node dist/bench/tokenise.js DOCUMENTS.json            measures
 * node dist/bench/tokenise.js --write DOCUMENTS.json    writes the texts, for both sides
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadTokenizer } from "#lib/data/index";
import { readSotu } from "#lib/data/datasets/sotu";
import { cacheDirectory } from "#lib/core/paths";

interface Documents {
  readonly tokenizer: string;
  readonly texts: readonly string[];
  readonly rounds: number;
}

const totalBytes = 100e6;
const sizeOf = (texts: readonly string[]): number =>
  texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);

const [first, second] = process.argv.slice(2);
const model = join(cacheDirectory(), "models", "SmolLM2-135M-Instruct");
if (first === "--write" && second !== undefined) {
  const texts = (await readSotu()).map(({ text }) => text);
  writeFileSync(
    second,
    JSON.stringify({
      tokenizer: join(model, "tokenizer.json"),
      texts,
      rounds: Math.ceil(totalBytes / sizeOf(texts)),
    }),
  );
  console.log(JSON.stringify({ values: { texts: texts.length } }));
} else if (first !== undefined) {
  // Before the library's first call, which starts its threads.
  process.env["RAYON_NUM_THREADS"] = "1";
  const { texts, rounds } = JSON.parse(readFileSync(first, "utf8")) as Documents;
  const tokenizer = await loadTokenizer(model);
  await tokenizer.encodeMany(texts.slice(0, 10));
  let [seconds, numTokens, idSum] = [0, 0, 0];
  for (let round = 0; round < rounds; round++) {
    const startedAt = performance.now();
    const encoded = await tokenizer.encodeMany(texts);
    seconds += (performance.now() - startedAt) / 1000;
    for (const ids of encoded) {
      numTokens += ids.length;
      for (const id of ids) idSum += id;
    }
  }
  const values = { tokenise: (rounds * sizeOf(texts)) / 1e6 / seconds };
  console.log(JSON.stringify({ values, check: { numTokens, idSum } }));
} else {
  process.stderr.write("usage: tokenise.js [--write] DOCUMENTS.json\n");
  process.exit(2);
}
