import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { renderConversation } from "#lib/data/encode-example";
import { parseExample, recogniseFormat } from "#lib/data/formats/index";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { parseFields } from "#lib/data/readers/jsonl";

const directory = await mkdtemp(join(tmpdir(), "lockstep-messages-"));
after(() => rm(directory, { recursive: true }));

let numTokenizers = 0;
/** The tokenizer of tests/fixtures/tok with other files. */
export async function tokenizerWith(files: Readonly<Record<string, string>>): Promise<Tokenizer> {
  const folder = join(directory, String(numTokenizers++));
  await mkdir(join(folder, "additional_chat_templates"), { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await copyFile(join(packageRoot, "tests/fixtures/tok", name), join(folder, name));
  }
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return loadTokenizer(folder);
}
export const withTemplate = (template: string): Promise<Tokenizer> =>
  tokenizerWith({ "chat_template.jinja": template });

/** Writes everything that a message may have. */
export const wholeTemplate =
  "{% for t in tools or [] %}TOOL {{ t | tojson }}\n{% endfor %}" +
  "{% for m in messages %}<|im_start|>{{ m.role }}\n" +
  "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}" +
  "{% for c in m.tool_calls or [] %}CALL {{ (c.function or c) | tojson }}{% endfor %}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const everything = await withTemplate(wholeTemplate);

/** What a row is rendered to, its examples one after another. */
export function textOf(row: unknown, tokenizer = everything): string {
  const json = typeof row === "string" ? row : JSON.stringify(row);
  const fields = parseFields(json, { file: "chats.jsonl", line: 3, column: 1 });
  const raw = { place: "chats.jsonl:3", fields };
  const example = parseExample(raw, recogniseFormat(raw));
  assert.equal(example.kind, "conversation");
  return renderConversation(example, tokenizer, raw.place)
    .map(({ text }) => text)
    .join("---\n");
}

/** Line 3 of chats.jsonl is refused, with these words. */
export function refused(row: unknown, code: string, words: RegExp, tokenizer = everything): void {
  assert.throws(
    () => textOf(row, tokenizer),
    (error) => {
      assert.ok(isLockstepError(error), String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, /^chats\.jsonl:3: /);
      assert.match(error.message, words);
      return true;
    },
  );
}

export const user = { role: "user", content: "Rain?" };
export const answer = { role: "assistant", content: "It rains." };
export const call = (args: unknown): object => ({ name: "rain", arguments: args });
/** A conversation whose second message may call a tool. */
export const withCall = (message: object, more: object = {}): object => ({
  messages: [user, { role: "assistant", ...message }, { role: "tool", content: "yes" }, answer],
  ...more,
});
