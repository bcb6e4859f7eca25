import { atPlace, isJsonObject, type JsonData, parseJsonData } from "#lib/data/json-data";
import type { FormatRow } from "./example.js";

/** A call or a tool, before it is known what it holds. */
type JsonObject = ReadonlyMap<string, JsonData>;

/**
 * `tool_calls` of a message: each `{function: {name, arguments}}` with more beside it, or `{name, arguments}`.
 * Arguments that are JSON text, OpenAI's form, become the object that templates write.
 *
 * @throws E_DATA_ROW_FORMAT
 */
export function readToolCalls(row: FormatRow, calls: JsonData, message: string): JsonData {
  if (!Array.isArray(calls)) throw row.wrong(`the tool_calls of ${message} are not a list`);
  return (calls as readonly JsonData[]).map((call, i) => {
    const what = `call ${i + 1} of ${message}`;
    if (!isJsonObject(call)) throw row.wrong(`${what} is not an object`);
    const inner = call.get("function");
    if (inner === undefined) return readFunction(row, call, what);
    if (!isJsonObject(inner)) throw row.wrong(`the function of ${what} is not an object`);
    return new Map([...call, ["function", readFunction(row, inner, what)]]);
  });
}

/** OpenAI's `function_call`, before there were `tool_calls`. */
export function readFunctionCall(row: FormatRow, call: JsonData, message: string): JsonData {
  const what = `the function_call of ${message}`;
  if (!isJsonObject(call)) throw row.wrong(`${what} is not an object`);
  return [functionTool(readFunction(row, call, what))];
}

/** The text of a turn `function_call` of ShareGPT: a call in JSON, or a list of them. */
export function readCallText(row: FormatRow, text: string, turn: string): JsonData {
  const problem = `${turn} is not a call {"name", "arguments"} in JSON`;
  const calls = parseText(row, text, problem);
  const list: readonly JsonData[] = Array.isArray(calls) ? (calls as JsonData[]) : [calls];
  return list.map((call, i) => {
    if (!isJsonObject(call)) throw row.wrong(problem);
    const whole = call.has("arguments")
      ? call
      : new Map<string, JsonData>([...call, ["arguments", new Map()]]);
    return functionTool(readFunction(row, whole, `call ${i + 1} of ${turn}`));
  });
}

/** A call by name, its arguments an object. */
function readFunction(row: FormatRow, call: JsonObject, what: string): JsonObject {
  const name = call.get("name");
  if (typeof name !== "string" || name === "") throw row.wrong(`${what} has no name`);
  const given = call.get("arguments");
  if (given === undefined) return call;
  const problem = `the arguments of ${what} are not an object in JSON`;
  const read = typeof given === "string" ? parseText(row, given, problem) : given;
  if (!isJsonObject(read)) throw row.wrong(problem);
  return new Map([...call, ["arguments", read]]);
}

/**
 * Tools for the template: a list of JSON schemas or its text, or OpenAI's older `functions`. null where
 * the row has neither.
 *
 * @param functionsField the column of `functions`, where that may be one
 * @throws E_DATA_ROW_FORMAT
 */
export function readTools(row: FormatRow, toolsField: string, functionsField?: string): JsonData {
  const tools = readList(row, toolsField);
  const functions = functionsField === undefined ? null : readList(row, functionsField);
  if (functions === null) return tools;
  if (tools !== null) throw row.wrong(`it has both ${toolsField} and ${functionsField ?? ""}`);
  return functions.map(functionTool);
}

const functionTool = (of: JsonData): JsonData =>
  new Map<string, JsonData>([
    ["type", "function"],
    ["function", of],
  ]);

function readList(row: FormatRow, field: string): readonly JsonData[] | null {
  const quoted = JSON.stringify(field);
  const given = row.data(field);
  if (given === null || (typeof given === "string" && given.trim() === "")) return null;
  const list = typeof given === "string" ? parseText(row, given, `${quoted} is not JSON`) : given;
  if (list === null) return null;
  if (!Array.isArray(list)) throw row.wrong(`${quoted} is not a list of tools`);
  return (list as readonly JsonData[]).map((tool, i) => {
    if (isJsonObject(tool)) return tool;
    throw row.wrong(`tool ${i + 1} of ${quoted} is not an object`);
  });
}

/** JSON inside of JSON: what it says, null included, was meant. */
function parseText(row: FormatRow, text: string, problem: string): JsonData {
  try {
    JSON.parse(text);
  } catch {
    throw row.wrong(problem);
  }
  return atPlace(row.place, () => parseJsonData(text));
}
