import { fillFormat, type InstructionForm } from "#lib/core/config/index";
import { isRecord } from "#lib/data/files";
import { messagesRow } from "./conversations.js";
import type {
  ChatForm,
  CompletionExample,
  ConversationExample,
  FormatOptions,
  FormatRow,
} from "./example.js";

/** Rows of axolotl's data sets. */

/** An instruction, perhaps with an input, whose prompt is written by a format. */
export function instructionRow(row: FormatRow, form: InstructionForm): CompletionExample {
  const optional = (field: string): string => (field === "" ? "" : row.optionalString(field));
  const instruction = row.string(form.field_instruction);
  const input = optional(form.field_input);
  const completion = optional(form.field_output);
  if (completion === "") throw row.noAnswer();
  const system = optional(form.field_system) || form.system_prompt;
  const head = system === "" ? "" : fillFormat(form.system_format, { system });
  const turn =
    input === ""
      ? fillFormat(form.no_input_format, { instruction })
      : fillFormat(form.format, { instruction, input });
  return { kind: "completion", prompt: head + turn, completion };
}

/** Messages whose parts and roles have other names; the model's chat template gives the text. */
export function chatRow(
  row: FormatRow,
  options: FormatOptions,
  form: ChatForm,
): ConversationExample {
  const { columns = {} } = options;
  const field = columns.messages ?? "messages";
  const list = row.get(field);
  if (!Array.isArray(list)) {
    throw row.wrong(
      list === undefined
        ? `it lacks ${JSON.stringify(field)} (it has ${Object.keys(row.fields).slice(0, 10).join(", ") || "no fields"})`
        : `${JSON.stringify(field)} is not a list`,
    );
  }
  const messages = list.map((value: unknown, i) => readMessage(row, value, i, form));
  const system = row.optionalString(columns.system ?? "system");
  if (system !== "" && messages[0]?.["role"] !== "system") {
    messages.unshift({ role: "system", content: system });
  }
  if (form.dropsSystem && messages[0]?.["role"] === "system") messages.shift();
  return messagesRow(row, options, messages);
}

function readMessage(
  row: FormatRow,
  value: unknown,
  index: number,
  { parts, roles, learntPart }: ChatForm,
): Record<string, unknown> {
  const wrong = (problem: string): never => {
    throw row.wrong(`message ${index + 1} ${problem}`);
  };
  if (!isRecord(value)) return wrong("is not an object");
  const theirs = new Set([
    ...Object.values(parts),
    ...(learntPart === undefined ? [] : [learntPart]),
  ]);
  const message: Record<string, unknown> = Object.fromEntries(
    Object.entries(value).filter(([name]) => !theirs.has(name)),
  );
  for (const [ours, name] of Object.entries(parts)) {
    if (value[name] !== undefined) message[ours] = value[name];
  }
  const role = message["role"];
  if (typeof role !== "string") return wrong(`has no text in ${JSON.stringify(parts["role"])}`);
  message["role"] = roles.get(role) ?? role;
  const learnt = learntPart === undefined ? undefined : value[learntPart];
  if (learnt === undefined || learnt === null) return message;
  if (typeof learnt !== "boolean") return wrong(`has no true or false in ${learntPart ?? ""}`);
  if (learnt && message["role"] !== "assistant") {
    return wrong(`is to be learnt, and ${role} is not the assistant`);
  }
  return { ...message, weight: learnt ? 1 : 0 };
}
