import { placeOf, type ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { checkVocabulary, refuseSecondBeginning, type Tokenizer } from "#lib/data/index";

export interface SampleRequest {
  readonly promptText: string;
  /** The prompt is a user's message: the model learns chats. */
  readonly isChat: boolean;
  readonly prompt: Int32Array;
  readonly maxNewTokens: number;
  readonly endTokenIds: readonly number[];
}

interface SampleContext {
  readonly maxPositions: number;
  readonly vocabSize: number;
  readonly isChat: boolean;
}

/**
 * What `sample_prompt` asks for: a user's message, or a text that begins as transformers'
 * `tokenizer(prompt)` does.
 *
 * @throws E_CONFIG_INVALID, E_TOKEN_OUT_OF_VOCABULARY, E_CHAT_TEMPLATE_SECOND_BOS
 */
export async function sampleOf(
  config: ResolvedConfig,
  tokenizer: Tokenizer,
  { maxPositions, vocabSize, isChat }: SampleContext,
): Promise<SampleRequest | undefined> {
  const promptText = config.sample_prompt;
  if (promptText === null) return undefined;
  const message = { role: "user", content: promptText };
  const where = placeOf(config, "sample_prompt");
  if (!isChat) {
    const place = where === "" ? "sample_prompt" : `sample_prompt (${where})`;
    const plain = await tokenizer.encode(promptText);
    refuseSecondBeginning(plain, { place, prefix: tokenizer.prefixTokenIds, tokenizer });
  }
  // A template writes the beginning token itself.
  const prompt = await (isChat
    ? tokenizer.encode(tokenizer.applyChatTemplate([message], { addGenerationPrompt: true }))
    : tokenizer.encode(promptText, { addSpecialTokens: true }));
  checkVocabulary(prompt, { tokenizer, vocabSize, document: "sample_prompt" });
  const room = maxPositions - prompt.length;
  if (prompt.length === 0 || room < 1) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "sample_prompt",
      expected: `text of 1 to ${maxPositions - 1} tokens`,
      got: `${prompt.length} tokens`,
      where,
    });
  }
  return {
    promptText,
    isChat,
    prompt,
    maxNewTokens: Math.min(config.sample_max_new_tokens, room),
    endTokenIds: tokenizer.endTokenIds,
  };
}
