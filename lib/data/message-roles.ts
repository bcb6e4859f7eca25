import { editDistance, nearestName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import type { ChatMessage, ChatTemplate } from "./chat-template.js";

const knownRoles = ["system", "developer", "user", "assistant", "tool"];
/** Names that other forms of data have for the roles above. */
const foreignRoles = [
  ...["human", "prompter", "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "llm"],
  ...["observation", "function_call"],
];

/**
 * Refuses roles that are a slip of the pen (asistant), or those of another form (gpt): many templates
 * write any role, and the answer would silently not be learnt. Other roles are the template's affair.
 *
 * @throws E_DATA_ROW_FORMAT
 */
export function checkRoles(
  messages: readonly ChatMessage[],
  template: ChatTemplate,
  place: string,
): void {
  for (const [i, { role }] of messages.entries()) {
    if (knownRoles.includes(role) || template.mentions(role)) continue;
    const nearest = nearestName(role, knownRoles) ?? "";
    const isSlip = editDistance(role.toLowerCase().trim(), nearest) <= Math.max(1, role.length / 4);
    if (!isSlip && !foreignRoles.includes(role.toLowerCase())) continue;
    const meant = isSlip
      ? `; ${nearest} may be meant`
      : "; an entry's `roles` gives it another name";
    throw new LockstepError("E_DATA_ROW_FORMAT", {
      place,
      format: "messages",
      problem: `message ${i + 1} has the role ${JSON.stringify(role)}, which is none of ${knownRoles.join(", ")}${meant}`,
    });
  }
}
