import { atPlace, isJsonObject, type JsonData, parseJsonData } from "#lib/data/json-data";
import type { RawFields } from "./example.js";

/** A call or a tool, before it is known what it holds. */
type JsonObject = ReadonlyMap<string, JsonData>;

/**
 * `tool_calls` of a message: each `{function: {name, arguments}}` with more beside it, or `{name, arguments}`.
 * Arguments that are JSON text, OpenAI's form, become the object that templates write.
 *
 * @throws E_DATA_ROW_FORMAT
 */
export function readToolCalls(raw: RawFields, calls: JsonData, message: string): JsonData {
  if (!Array.isArray(calls)) throw raw.wrong(`the tool_calls of ${message} are not a list`);
  return (calls as readonly JsonData[]).map((call, i) => {
    const what = `call ${i + 1} of ${message}`;
    if (!isJsonObject(call)) throw raw.wrong(`${what} is not an object`);
    const inner = call.get("function");
    if (inner === undefined) return readFunction(raw, call, what);
    if (!isJsonObject(inner)) throw raw.wrong(`the function of ${what} is not an object`);
    return new Map([...call, ["function", readFunction(raw, inner, what)]]);
  });
}

/** OpenAI's `function_call`, before there were `tool_calls`. */
export function readFunctionCall(raw: RawFields, call: JsonData, message: string): JsonData {
  const what = `the function_call of ${message}`;
  if (!isJsonObject(call)) throw raw.wrong(`${what} is not an object`);
  return [functionTool(readFunction(raw, call, what))];
}

/** The text of a turn `function_call` of ShareGPT: a call in JSON, or a list of them. */
export function readCallText(raw: RawFields, text: string, turn: string): JsonData {
  const problem = `${turn} is not a call {"name", "arguments"} in JSON`;
  const calls = parseText(raw, text, problem);
  const list: readonly JsonData[] = Array.isArray(calls) ? (calls as JsonData[]) : [calls];
  return list.map((call, i) => {
    if (!isJsonObject(call)) throw raw.wrong(problem);
    const whole = call.has("arguments")
      ? call
      : new Map<string, JsonData>([...call, ["arguments", new Map()]]);
    return functionTool(readFunction(raw, whole, `call ${i + 1} of ${turn}`));
  });
}

/** A call by name, its arguments an object. */
function readFunction(raw: RawFields, call: JsonObject, what: string): JsonObject {
  const name = call.get("name");
  if (typeof name !== "string" || name === "") throw raw.wrong(`${what} has no name`);
  const given = call.get("arguments");
  if (given === undefined) return call;
  const problem = `the arguments of ${what} are not an object in JSON`;
  const read = typeof given === "string" ? parseText(raw, given, problem) : given;
  if (!isJsonObject(read)) throw raw.wrong(problem);
  return new Map([...call, ["arguments", read]]);
}

/**
 * Tools for the template: a list of JSON schemas or its text, or OpenAI's older `functions`. null where
 * the example has neither.
 *
 * @param functionsField the column of `functions`, where that may be one
 * @throws E_DATA_ROW_FORMAT
 */
export function readTools(raw: RawFields, toolsField: string, functionsField?: string): JsonData {
  const tools = readList(raw, toolsField);
  const functions = functionsField === undefined ? null : readList(raw, functionsField);
  if (functions === null) return tools;
  if (tools !== null) throw raw.wrong(`it has both ${toolsField} and ${functionsField ?? ""}`);
  return functions.map(functionTool);
}

const functionTool = (of: JsonData): JsonData =>
  new Map<string, JsonData>([
    ["type", "function"],
    ["function", of],
  ]);

function readList(raw: RawFields, field: string): readonly JsonData[] | null {
  const quoted = JSON.stringify(field);
  const given = raw.data(field);
  if (given === null || (typeof given === "string" && given.trim() === "")) return null;
  const list = typeof given === "string" ? parseText(raw, given, `${quoted} is not JSON`) : given;
  if (list === null) return null;
  if (!Array.isArray(list)) throw raw.wrong(`${quoted} is not a list of tools`);
  return (list as readonly JsonData[]).map((tool, i) => {
    if (isJsonObject(tool)) return tool;
    throw raw.wrong(`tool ${i + 1} of ${quoted} is not an object`);
  });
}

/** JSON inside of JSON: what it says, null included, was meant. */
function parseText(raw: RawFields, text: string, problem: string): JsonData {
  try {
    JSON.parse(text);
  } catch {
    throw raw.wrong(problem);
  }
  return atPlace(raw.place, () => parseJsonData(text));
}
