import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import type { LlamaCppAnswer, LlamaCppRequest } from "#tests/support/llama-cpp";

// Standard input: requests; standard output: what llama.cpp says. A process of its own, since its native parts and
// TensorFlow's know nothing of each other.

/** What is used of node-llama-cpp. */
interface Sequence {
  evaluate(
    tokens: readonly number[],
    options: Readonly<Record<string, unknown>>,
  ): AsyncIterable<number>;
}
interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): Sequence; dispose(): Promise<void> }>;
  tokenize(text: string, specialTokens: boolean): readonly number[];
  isEogToken(token: number): boolean;
  readonly tokens: { readonly bos: number | null; readonly shouldPrependBosToken: boolean };
  readonly fileInfo: {
    readonly metadata: { readonly tokenizer?: { readonly chat_template?: string } };
  };
  dispose(): Promise<void>;
}
interface LlamaModule {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
}

const { module, requests } = JSON.parse(readFileSync(0, "utf8")) as {
  readonly module: string;
  readonly requests: readonly LlamaCppRequest[];
};
const { getLlama } = (await import(pathToFileURL(module).href)) as LlamaModule;
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error" });
const answers: LlamaCppAnswer[] = [];
for (const { file, prompt, numTokens, texts, specialTexts } of requests) {
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, useMmap: false });
  const context = await model.createContext({
    // Flash attention rounds to float16 inside: log-probabilities of a tiny model differ by 0.01, and by 1e-5 without.
    ...{ contextSize: prompt.length + numTokens, threads: 1, flashAttention: false },
    ...{ experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" },
  });
  const continuation: number[] = [];
  const options = { temperature: 0, yieldEogToken: true };
  for await (const token of context.getSequence().evaluate(prompt, options)) {
    continuation.push(token);
    if (continuation.length === numTokens) break;
  }
  answers.push({
    continuation,
    tokens: texts.map((text) => [...model.tokenize(text, false)]),
    specialTokens: specialTexts.map((text) => [...model.tokenize(text, true)]),
    endTokens: Array.from({ length: 3 }, (_, id) => id).filter((id) => model.isEogToken(id)),
    addsBos: model.tokens.shouldPrependBosToken,
    chatTemplate: model.fileInfo.metadata.tokenizer?.chat_template ?? null,
  });
  await context.dispose();
  await model.dispose();
}
process.stdout.write(JSON.stringify(answers));
process.exit(0);
