import { nearestName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import type { EntryPlace } from "./dataset-entries.js";
import { show } from "./show.js";

/** How the prompt of a row with an instruction is written: axolotl's `type` as a mapping, with its defaults. */
export interface InstructionForm {
  readonly system_prompt: string;
  readonly system_format: string;
  readonly field_system: string;
  readonly field_instruction: string;
  readonly field_input: string;
  readonly field_output: string;
  /** With `{instruction}` and `{input}`; doubled braces stand for themselves. */
  readonly format: string;
  /** For rows without an input. */
  readonly no_input_format: string;
}

const defaults: InstructionForm = Object.freeze({
  system_prompt: "",
  system_format: "{system}",
  field_system: "system",
  field_instruction: "instruction",
  field_input: "input",
  field_output: "output",
  format: "{instruction} {input} ",
  no_input_format: "{instruction} ",
});

const task = "Below is an instruction that describes a task";
const request = "Write a response that appropriately completes the request.\n\n";
const instruction = "### Instruction:\n{instruction}\n\n";

/** Stanford Alpaca's prompts, which `type: alpaca` means. */
export const alpacaForm: InstructionForm = Object.freeze({
  ...defaults,
  // No column of a row is a system prompt there.
  field_system: "",
  format: `${task}, paired with an input that provides further context. ${request}${instruction}### Input:\n{input}\n\n### Response:\n`,
  no_input_format: `${task}. ${request}${instruction}### Response:\n`,
});

/** Parts that each format may name. */
const parts: Readonly<Record<string, readonly string[]>> = {
  system_format: ["system"],
  format: ["instruction", "input"],
  no_input_format: ["instruction"],
};

/** @throws E_CONFIG_UNKNOWN_KEY, E_CONFIG_INVALID */
export function readInstructionForm(
  value: Readonly<Record<string, unknown>>,
  { key, where }: EntryPlace,
): InstructionForm {
  const known = Object.keys(defaults);
  const given: [string, string][] = [];
  for (const [name, text] of Object.entries(value)) {
    if (text === null) continue;
    const full = `${key}.${name}`;
    if (name === "field") {
      const reason = "it is for type: completion; write field beside type";
      throw new LockstepError("E_CONFIG_UNSUPPORTED", {
        key: full,
        value: show(text),
        reason,
        where,
      });
    }
    if (!known.includes(name)) {
      const nearest = nearestName(name, known) ?? "";
      throw new LockstepError("E_CONFIG_UNKNOWN_KEY", { key: full, where, nearest });
    }
    const allowed = parts[name];
    const expected =
      allowed === undefined ? "text" : `text with ${allowed.map(inBraces).join(" and ")}`;
    const isGood =
      typeof text === "string" &&
      (allowed === undefined || placeholders(text).every((each) => allowed.includes(each)));
    if (!isGood) {
      throw new LockstepError("E_CONFIG_INVALID", { key: full, expected, got: show(text), where });
    }
    given.push([name, text]);
  }
  return Object.freeze({ ...defaults, ...Object.fromEntries(given) });
}

const inBraces = (name: string): string => `{${name}}`;
const placeholder = /\{\{|\}\}|\{([^{}]*)\}|[{}]/g;

/** Names in braces; a lone brace is a name that nothing has. */
function placeholders(format: string): string[] {
  return [...format.matchAll(placeholder)]
    .filter(([whole]) => whole !== "{{" && whole !== "}}")
    .map(([whole, name]) => name ?? whole);
}

/** Python's `format` for named values. */
export function fillFormat(format: string, values: Readonly<Record<string, string>>): string {
  return format.replace(placeholder, (whole, name: string | undefined) =>
    name === undefined ? whole.slice(0, 1) : (values[name] ?? ""),
  );
}
