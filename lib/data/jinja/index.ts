import { type Node, parseTemplate } from "./ast.js";
import { globals } from "./globals.js";
import { renderTree } from "./interpreter.js";
import { strftime } from "./strftime.js";
import { startRendering } from "./budget.js";
import { jsonText as textAsJson, textOf } from "./text.js";
import { Callable, fail, type Value } from "./values.js";

export { type Value } from "./values.js";

/** Python's `json.dumps`. @throws Error for what is not JSON */
export function jsonText(value: Value): string {
  startRendering();
  return textAsJson(value);
}

/** A chat template that renders as transformers does: Jinja with Python's values. */
interface JinjaTemplate {
  /**
   * @param date what `strftime_now` writes
   * @throws TemplateError, and Error for what goes wrong below
   */
  readonly render: (variables: Readonly<Record<string, Value>>, date: Date) => string;
}

/** @throws Error where the template is not one */
export function compileTemplate(source: string): JinjaTemplate {
  const tree: Node = parseTemplate(source);
  return {
    render: (variables, date) => {
      const now = new Callable(([format = null]) => {
        if (typeof format !== "string") return fail("TypeError: strftime() needs a text");
        return strftime(date, textOf(format));
      });
      const all: [string, Value][] = [...globals, ["strftime_now", now]];
      return renderTree(tree, new Map([...all, ...Object.entries(variables)]));
    },
  };
}

export const callsDate = (source: string): boolean => /\bstrftime_now\b/.test(source);
