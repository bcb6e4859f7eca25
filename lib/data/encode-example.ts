import { LockstepError } from "#lib/core/errors/index";
import type { CompletionExample, ConversationExample } from "./formats/index.js";
import type { ChatTemplate } from "./chat-template.js";
import { refuseSecondBeginning } from "./document-tokens.js";
import type { MarkedText, TextSpan } from "./generation-marks.js";
import { checkRoles } from "./message-roles.js";
import { TemplateTraces } from "./template-traces.js";
import type { MarkedTokens, Tokenizer } from "./tokenizer.js";

/** A text with the spans that are learnt, before it is tokenised. */
export interface RenderedExample extends MarkedText {
  readonly place: string;
  readonly kind: "completion" | "conversation";
}

/** The span of an answer, with the message that it is of, counted from 0. */
interface AnswerSpan extends TextSpan {
  readonly message: number;
}
/** An example of the first `end` messages of a conversation. */
interface RenderedAnswers {
  readonly text: string;
  readonly spans: readonly AnswerSpan[];
  readonly end: number;
}

/**
 * The text of a conversation with its answers marked. Where the template marks them itself
 * (`{% generation %}`) its marks count, else the answer to messages[:i] is what messages[:i+1] adds to
 * the prompt of messages[:i]. Where a template writes an earlier answer in another way once more follows
 * (it drops thoughts), each answer becomes an example of its own, as the model would have met it.
 *
 * @param place of the example, for messages
 * @throws E_CHAT_TEMPLATE_MISSING, E_CHAT_TEMPLATE_FAILED, E_DATA_ROW_FORMAT for a role that is a slip,
 *   E_DATA_NOT_IN_TEMPLATE for what the template leaves out, E_DATA_BLANK_ANSWER
 */
export function renderConversation(
  example: Omit<ConversationExample, "kind">,
  tokenizer: Tokenizer,
  place = "the conversation",
): MarkedText[] {
  const all = tokenizer.requireChatTemplate();
  try {
    const template = all.forTools(example.tools);
    checkRoles(example.messages, template, place);
    const specialTokens = [...tokenizer.specialTokens.values()];
    const traces = new TemplateTraces(example, template);
    const rendered =
      renderByMarks(example, template, traces) ?? renderByPrefix(example, template, specialTokens);
    for (const { end } of rendered) traces.look(end);
    traces.look(example.messages.length);
    const what = traces.firstMissing(example.isLearnt);
    if (what !== undefined) {
      throw new LockstepError("E_DATA_NOT_IN_TEMPLATE", { place, file: template.file, what });
    }
    refuseBlankAnswers(rendered, frameTokens(tokenizer), place);
    return rendered.map(({ text, spans }) => ({
      text,
      spans: spans.map(({ start, end, message }) => {
        const weight = example.weights?.[message];
        return weight === undefined ? { start, end } : { start, end, weight };
      }),
    }));
  } catch (error) {
    throw placed(error, place);
  }
}

/** Names the example of a template's failure. */
function placed(error: unknown, place: string): unknown {
  if (!(error instanceof LockstepError) || error.code !== "E_CHAT_TEMPLATE_FAILED") return error;
  const { file, problem } = error.details as { file: string; problem: string };
  return new LockstepError(
    "E_CHAT_TEMPLATE_FAILED",
    { file, problem, place },
    { cause: error.cause },
  );
}

function renderByMarks(
  { messages, isLearnt, weights, tools }: Omit<ConversationExample, "kind">,
  template: ChatTemplate,
  traces: TemplateTraces,
): RenderedAnswers[] | undefined {
  if (!template.marksAnswers) return undefined;
  const answers = messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const render = (end: number): MarkedText =>
    template.renderMarked(messages.slice(0, end), { addGenerationPrompt: false, tools });
  const end = messages.length;
  const { text, spans } = render(end);
  if (answers.length !== spans.length) {
    // A template may join messages into one answer; then only all of them can be learnt, and alike.
    if (answers.some((message) => isLearnt[message] !== true)) return undefined;
    if (new Set(answers.map((message) => weights?.[message])).size > 1) return undefined;
    const message = answers.at(-1) ?? 0;
    return [{ text, spans: spans.map((span) => ({ ...span, message })), end }];
  }
  const own = spans.map((span, i) => ({ ...span, message: answers[i] ?? 0 }));
  traces.look(end);
  const alone: RenderedAnswers[] = [];
  for (const message of traces.withoutThoughts) {
    if (isLearnt[message] !== true) continue;
    const before = render(message + 1);
    const span = before.spans.at(-1);
    const isSame = before.spans.length === answers.indexOf(message) + 1;
    if (span === undefined || !isSame || !traces.look(message + 1)) continue;
    alone.push({ text: before.text, spans: [{ ...span, message }], end: message + 1 });
  }
  const isAlone = (message: number): boolean =>
    alone.some((each) => each.spans.some((span) => span.message === message));
  const kept = own.filter(({ message }) => isLearnt[message] === true && !isAlone(message));
  return kept.length === 0 && alone.length > 0 ? alone : [...alone, { text, spans: kept, end }];
}

function renderByPrefix(
  { messages, isLearnt, tools }: Omit<ConversationExample, "kind">,
  template: ChatTemplate,
  specialTokens: readonly string[],
): RenderedAnswers[] {
  const render = (end: number, addGenerationPrompt: boolean): string =>
    template.render(messages.slice(0, end), { addGenerationPrompt, tools });
  const text = render(messages.length, false);
  const spans: AnswerSpan[] = [];
  const alone: RenderedAnswers[] = [];
  for (let i = 0; i < messages.length; i++) {
    if (isLearnt[i] !== true) continue;
    const prompt = render(i, true);
    const answered = i + 1 === messages.length ? text : render(i + 1, false);
    const before = i === 0 ? "" : render(i, false);
    const start = startOfAnswer(before, prompt, answered);
    if (start === undefined) {
      const problem = `it writes the first ${i} messages in another way once an answer follows`;
      throw new LockstepError("E_CHAT_TEMPLATE_FAILED", { file: template.file, problem });
    }
    const span = { start, end: endOfAnswer(answered, specialTokens), message: i };
    if (text.startsWith(answered)) spans.push(span);
    else alone.push({ text: answered, spans: [span], end: i + 1 });
  }
  return spans.length === 0 ? alone : [...alone, { text, spans, end: messages.length }];
}

const framesOf = new WeakMap<Tokenizer, readonly string[]>();

/**
 * Special tokens that begin, end or pad texts, or that the chat template writes: alone they answer nothing.
 * Others (<|yes|>) may be what is to be learnt.
 */
function frameTokens(tokenizer: Tokenizer): readonly string[] {
  const known = framesOf.get(tokenizer);
  if (known !== undefined) return known;
  const { bosTokenId, padTokenId, documentSeparatorTokenId, endTokenIds, chatTemplate } = tokenizer;
  const byRole = new Set([bosTokenId, padTokenId, documentSeparatorTokenId, ...endTokenIds]);
  const tokens = [...tokenizer.specialTokens].flatMap(([id, token]) =>
    byRole.has(id) || chatTemplate?.holds(token) === true ? [token] : [],
  );
  framesOf.set(tokenizer, tokens);
  return tokens;
}

/** Whether a text is nothing but blanks and special tokens. */
function isBlank(text: string, specialTokens: readonly string[]): boolean {
  let left = text.trimStart();
  // Nearly every text begins with something else than a special token.
  if (left !== "" && !specialTokens.some((token) => left.startsWith(token))) return false;
  for (const token of specialTokens) left = left.replaceAll(token, "");
  return left.trim() === "";
}

/**
 * Where an answer begins: behind the prompt, as far as both agree. A prompt may open thoughts that the
 * template leaves out of a finished answer. Some templates (Hermes) close a tool's result in another way
 * once something follows: then the answer is what follows the header that the prompt adds.
 *
 * @param before the same messages without the header
 */
function startOfAnswer(before: string, prompt: string, answered: string): number | undefined {
  const start = commonPrefix(prompt, answered);
  const headerStart = commonPrefix(before, prompt);
  if (start >= headerStart) return start;
  const header = prompt.slice(headerStart);
  if (header.trim() === "") return undefined;
  const found = answered.indexOf(header, commonPrefix(before, answered));
  return found < 0 ? undefined : found + header.length;
}

/** @throws E_DATA_BLANK_ANSWER */
function refuseBlankAnswers(
  rendered: readonly RenderedAnswers[],
  specialTokens: readonly string[],
  place: string,
): void {
  for (const { text, spans } of rendered) {
    for (const { start, end, message } of spans) {
      if (isBlank(text.slice(start, end), specialTokens)) {
        throw new LockstepError("E_DATA_BLANK_ANSWER", { place, message: message + 1 });
      }
    }
  }
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

/** @throws E_DATA_NO_ANSWER for a completion of blanks and end tokens */
export function refuseBlankCompletion(
  { completion }: CompletionExample,
  tokenizer: Tokenizer,
  place: string,
): void {
  if (!isBlank(completion, frameTokens(tokenizer))) return;
  throw new LockstepError("E_DATA_NO_ANSWER", { place });
}

export function renderCompletion({ prompt, completion }: CompletionExample): MarkedText {
  const text = prompt + completion;
  return { text, spans: [{ start: prompt.length, end: text.length }] };
}

/** The tokens of an example, those that are not learnt as their complement. */
export interface LearntTokens {
  readonly tokens: Int32Array;
  /** How much each counts that is learnt; absent: 1. */
  readonly weights: Float32Array | undefined;
}

/**
 * The tokens of an example, and which of them are learnt. What is learnt is decided by
 * place alone, so an end token that is also the padding token is learnt like any other.
 *
 * @throws E_DATA_NO_END_TOKEN, E_DATA_NO_ANSWER for one token without a prompt, E_CHAT_TEMPLATE_SECOND_BOS
 */
export function markTokens(
  rendered: RenderedExample,
  encoded: MarkedTokens,
  tokenizer: Tokenizer,
): LearntTokens {
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
  const isWeighted = encoded.spans.some(({ weight = 1 }) => weight !== 1);
  const weights = isWeighted ? new Float32Array(ids.length).fill(1) : undefined;
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
    weights?.fill(span.weight ?? 1, start, end);
  }
  const isFirstAlone =
    kind === "completion" &&
    (marked[0] ?? -1) >= 0 &&
    ids.subarray(1).every((id) => tokenizer.endTokenIds.includes(id));
  if (isFirstAlone) {
    const what = "answer behind its first token, which nothing predicts,";
    throw new LockstepError("E_DATA_NO_ANSWER", { place, what });
  }
  return { tokens: marked, weights };
}

/** Targets among the first tokens of an example; its first token is none. */
export function countSupervised(marked: Int32Array, maxLength: number): number {
  let count = 0;
  for (let i = 1; i < Math.min(marked.length, maxLength); i++) if ((marked[i] ?? -1) >= 0) count++;
  return count;
}
