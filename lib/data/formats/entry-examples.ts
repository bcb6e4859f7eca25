import { fillFormat, type InstructionForm } from "#lib/config/index";
import { isJsonObject, type JsonData } from "#lib/data/json-data";
import type {
  ChatForm,
  CompletionExample,
  ConversationExample,
  FormatOptions,
  RawFields,
} from "./example.js";
import { refuseOtherSystem } from "./conversations.js";
import { givenWeight, messagesExample } from "./messages.js";

/** Examples of axolotl's data sets. */

/** An instruction, perhaps with an input, whose prompt is written by a format. */
export function instructionExample(raw: RawFields, form: InstructionForm): CompletionExample {
  const optional = (field: string): string => (field === "" ? "" : raw.optionalString(field));
  const instruction = raw.string(form.field_instruction);
  const input = optional(form.field_input);
  const completion = optional(form.field_output);
  if (completion === "") throw raw.noAnswer();
  const system = optional(form.field_system) || form.system_prompt;
  const head = system === "" ? "" : fillFormat(form.system_format, { system });
  const turn =
    input === ""
      ? fillFormat(form.no_input_format, { instruction })
      : fillFormat(form.format, { instruction, input });
  return { kind: "completion", prompt: head + turn, completion };
}

/** Messages whose parts and roles have other names; the model's chat template gives the text. */
export function chatExample(
  raw: RawFields,
  options: FormatOptions,
  form: ChatForm,
): ConversationExample {
  const { columns = {} } = options;
  const field = columns.messages ?? "messages";
  const list = raw.data(field);
  if (!Array.isArray(list)) {
    throw raw.wrong(
      list === null
        ? `it lacks ${JSON.stringify(field)} (it has ${Object.keys(raw.fields).slice(0, 10).join(", ") || "no fields"})`
        : `${JSON.stringify(field)} is not a list`,
    );
  }
  const messages = (list as readonly JsonData[]).map((value, i) =>
    readMessage(raw, value, i, form),
  );
  const system = raw.optionalString(columns.system ?? "system");
  if (messages[0]?.get("role") === "system") {
    if (!form.dropsSystem) refuseOtherSystem(raw, system, messages[0].get("content"));
  } else if (system !== "") {
    messages.unshift(
      new Map<string, JsonData>([
        ["role", "system"],
        ["content", system],
      ]),
    );
  }
  if (form.dropsSystem && messages[0]?.get("role") === "system") messages.shift();
  return messagesExample(raw, options, messages);
}

function readMessage(
  raw: RawFields,
  value: JsonData,
  index: number,
  { parts, roles, learntPart }: ChatForm,
): ReadonlyMap<string, JsonData> {
  const wrong = (problem: string): never => {
    throw raw.wrong(`message ${index + 1} ${problem}`);
  };
  if (!isJsonObject(value)) return wrong("is not an object");
  const ours = new Map(Object.entries(parts).map(([name, theirs]) => [theirs, name]));
  const message = new Map<string, JsonData>();
  for (const [name, each] of value) {
    const known = ours.get(name);
    if (known !== undefined) message.set(known, each);
    // A part of ours that has another name in the data is none of this message.
    else if (name !== learntPart && !Object.hasOwn(parts, name)) message.set(name, each);
  }
  const role = message.get("role");
  if (typeof role !== "string") return wrong(`has no text in ${JSON.stringify(parts["role"])}`);
  message.set("role", roles.get(role) ?? role);
  const learnt = learntPart === undefined ? undefined : value.get(learntPart);
  if (learnt === undefined) return message;
  if (typeof learnt !== "boolean") return wrong(`has no true or false in ${learntPart ?? ""}`);
  if (learnt && message.get("role") !== "assistant") {
    return wrong(`is to be learnt, and ${role} is not the assistant`);
  }
  if (!learnt) {
    message.delete("loss_weight");
    return message.set("weight", 0);
  }
  if (Number(givenWeight(raw, message, `message ${index + 1}`)) === 0)
    return wrong("is to be learnt, and has the weight 0");
  return message;
}
