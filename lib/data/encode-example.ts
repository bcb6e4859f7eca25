import { LockstepError } from "#lib/core/errors/index";
import type { CompletionExample, ConversationExample } from "./formats/index.js";
import type { ChatTemplate } from "./chat-template.js";
import { refuseSecondBeginning } from "./document-tokens.js";
import type { MarkedText, TextSpan } from "./generation-marks.js";
import type { MarkedTokens, Tokenizer } from "./tokenizer.js";

/** A text with the spans that are learnt, before it is tokenised. */
export interface RenderedExample extends MarkedText {
  readonly place: string;
  readonly kind: "completion" | "conversation";
}

/**
 * The text of a conversation with its answers marked. Where the template marks them itself
 * (`{% generation %}`) its marks count, else the answer to messages[:i] is what messages[:i+1] adds to
 * the prompt of messages[:i]. Where a template writes an earlier answer in another way once more follows
 * (it drops thoughts), each answer becomes an example of its own, as the model would have met it.
 *
 * @throws E_CHAT_TEMPLATE_MISSING, E_CHAT_TEMPLATE_FAILED
 */
export function renderConversation(
  { messages, isLearnt, tools }: ConversationExample,
  tokenizer: Tokenizer,
): MarkedText[] {
  const template = tokenizer.requireChatTemplate();
  if (template.marksAnswers) {
    const { text, spans } = template.renderMarked(messages, { addGenerationPrompt: false, tools });
    const answers = messages.flatMap(({ role }, i) => (role === "assistant" ? [isLearnt[i]] : []));
    if (answers.length === spans.length) {
      return [{ text, spans: spans.filter((_, i) => answers[i] === true) }];
    }
    // A template may join messages into one answer; then only all of them can be learnt.
    if (answers.every((learnt) => learnt === true)) return [{ text, spans }];
  }
  return renderByPrefix({ messages, isLearnt, tools }, template, [
    ...tokenizer.specialTokens.values(),
  ]);
}

function renderByPrefix(
  { messages, isLearnt, tools }: Omit<ConversationExample, "kind">,
  template: ChatTemplate,
  specialTokens: readonly string[],
): MarkedText[] {
  const render = (end: number, addGenerationPrompt: boolean): string =>
    template.render(messages.slice(0, end), { addGenerationPrompt, tools });
  const text = render(messages.length, false);
  const spans: TextSpan[] = [];
  const alone: MarkedText[] = [];
  for (let i = 0; i < messages.length; i++) {
    if (isLearnt[i] !== true) continue;
    const prompt = render(i, true);
    const answered = i + 1 === messages.length ? text : render(i + 1, false);
    // A prompt may open thoughts that the template leaves out of a finished answer.
    const start = commonPrefix(prompt, answered);
    if (start < (i === 0 ? 0 : commonPrefix(render(i, false), prompt))) {
      const problem = `it writes the first ${i} messages in another way once an answer follows`;
      throw new LockstepError("E_CHAT_TEMPLATE_FAILED", { file: template.file, problem });
    }
    const span = { start, end: endOfAnswer(answered, specialTokens) };
    if (text.startsWith(answered)) spans.push(span);
    else alone.push({ text: answered, spans: [span] });
  }
  return spans.length === 0 ? alone : [...alone, { text, spans }];
}

/** A line end after the end token belongs to what comes next. */
function endOfAnswer(text: string, specialTokens: readonly string[]): number {
  const trimmed = text.trimEnd();
  return specialTokens.some((token) => trimmed.endsWith(token)) ? trimmed.length : text.length;
}

function commonPrefix(a: string, b: string): number {
  if (b.startsWith(a)) return a.length;
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

export function renderCompletion({ prompt, completion }: CompletionExample): MarkedText {
  const text = prompt + completion;
  return { text, spans: [{ start: prompt.length, end: text.length }] };
}

/**
 * The tokens of an example, those that are not learnt as their complement. What is learnt is decided by
 * place alone, so an end token that is also the padding token is learnt like any other.
 *
 * @throws E_DATA_NO_END_TOKEN, E_DATA_NOTHING_SUPERVISED, E_CHAT_TEMPLATE_SECOND_BOS
 */
export function markTokens(
  rendered: RenderedExample,
  encoded: MarkedTokens,
  tokenizer: Tokenizer,
): Int32Array {
  const { place, kind } = rendered;
  const { bosTokenId, eosTokenId, specialTokens } = tokenizer;
  const isEnd = (id: number | undefined): boolean =>
    id !== undefined && (specialTokens.has(id) || tokenizer.endTokenIds.includes(id));
  const last = encoded.ids.at(-1);
  const prefix = kind === "completion" ? tokenizer.prefixTokenIds : [];
  const added = prefix.length;
  const ended = kind !== "completion" || tokenizer.endTokenIds.includes(last ?? -1);
  if (!ended && eosTokenId === null) throw new LockstepError("E_DATA_NO_END_TOKEN", { place });
  const ids = new Int32Array(added + encoded.ids.length + (ended ? 0 : 1));
  ids.set(prefix);
  ids.set(encoded.ids, added);
  if (!ended) ids[ids.length - 1] = eosTokenId ?? 0;
  refuseSecondBeginning(encoded.ids, { place, prefix, tokenizer });
  if (bosTokenId !== null && ids[0] === bosTokenId && ids[1] === bosTokenId) {
    const token = specialTokens.get(bosTokenId) ?? String(bosTokenId);
    throw new LockstepError("E_CHAT_TEMPLATE_SECOND_BOS", { place, token });
  }
  const marked = ids.map((id) => ~id);
  for (const span of encoded.spans) {
    const start = span.start + added;
    let end = span.end + added;
    if (kind === "completion") end = ids.length;
    else if (!isEnd(ids[end - 1])) {
      // Some templates put the end token behind the marked answer.
      if (!isEnd(ids[end])) throw new LockstepError("E_DATA_NO_END_TOKEN", { place });
      end++;
    }
    marked.set(ids.subarray(start, end), start);
  }
  return marked;
}

/** Targets among the first tokens of an example; its first token is none. */
export function countSupervised(marked: Int32Array, maxLength: number): number {
  let count = 0;
  for (let i = 1; i < Math.min(marked.length, maxLength); i++) if ((marked[i] ?? -1) >= 0) count++;
  return count;
}
