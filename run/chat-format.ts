import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "#lib/data/index";

/** What text of a format has around a message of a user, by axolotl's and LLaMA-Factory's names. */
const marks: Readonly<Record<string, string>> = {
  chatml: "<|im_start|>user",
  qwen: "<|im_start|>user",
  qwen2: "<|im_start|>user",
  qwen_25: "<|im_start|>user",
  qwen3: "<|im_start|>user",
  llama2: "[INST]",
  mistral: "[INST]",
  mistral_v1: "[INST]",
  mistral_v2v3: "[INST]",
  mistral_v3_tekken: "[INST]",
  mistral_v7_tekken: "[INST]",
  llama3: "<|start_header_id|>user<|end_header_id|>",
  llama3_2_vision: "<|start_header_id|>user<|end_header_id|>",
  llama4: "<|header_start|>user<|header_end|>",
  gemma: "<start_of_turn>user",
  gemma2: "<start_of_turn>user",
  gemma3: "<start_of_turn>user",
  phi: "<|user|>",
  phi_3: "<|user|>",
  phi_35: "<|user|>",
  phi_4: "<|im_start|>user<|im_sep|>",
  zephyr: "<|user|>",
  alpaca: "### Instruction:",
  vicuna: "USER:",
  cohere: "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
  command_a: "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
};

/** Names of the format that the model's own template has, whatever it is. */
const ownNames = /^tokenizer_default(_fallback_\w+)?$/;

/**
 * Refuses a `chat_template` that names another format than that of the model's own template, which writes the
 * conversations: what is learnt would be another text.
 *
 * @throws E_CONFIG_UNSUPPORTED
 */
export function checkChatFormat(
  name: string | null,
  tokenizer: Pick<Tokenizer, "applyChatTemplate" | "hasChatTemplate">,
): void {
  if (name === null || ownNames.test(name)) return;
  const refuse = (reason: string): never => {
    const facts = { key: "chat_template", value: JSON.stringify(name), reason, where: "" };
    throw new LockstepError("E_CONFIG_UNSUPPORTED", facts);
  };
  const mark = Object.hasOwn(marks, name) ? marks[name] : undefined;
  const advice =
    "conversations are written with chat_template.jinja in the model's directory; put that format there, or write chat_template: tokenizer_default";
  if (mark === undefined) {
    return refuse(`it is none of ${Object.keys(marks).join(", ")}; ${advice}`);
  }
  // Without a template there is an error that says so.
  if (!tokenizer.hasChatTemplate) return;
  const text = tokenizer.applyChatTemplate([{ role: "user", content: "text" }]);
  if (!text.includes(mark)) refuse(`the model's own template writes no ${mark}; ${advice}`);
}
