/**
 * Sets fields of an object in its JSON text and leaves every other character as it is: a round trip
 * through JavaScript numbers would turn Python's floats such as `10000.0` into integers.
 *
 * @param text an object, indented by two spaces as Python's `json.dumps(indent=2)` does
 */
export function withJsonFields(text: string, fields: Readonly<Record<string, unknown>>): string {
  return Object.entries(fields).reduce((changed, [name, value]) => {
    const written = JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
    const span = valueSpan(changed, name);
    if (span !== undefined) {
      return changed.slice(0, span.start) + written + changed.slice(span.end);
    }
    const open = changed.indexOf("{") + 1;
    const isEmpty = /^\s*\}/.test(changed.slice(open));
    const field = `\n  ${JSON.stringify(name)}: ${written}${isEmpty ? "\n" : ","}`;
    return changed.slice(0, open) + field + changed.slice(open);
  }, text);
}

/** Where the value of a field of the outermost object stands. */
function valueSpan(text: string, name: string): { start: number; end: number } | undefined {
  const tokens = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
  let depth = 0;
  let key: string | undefined;
  let start: number | undefined;
  let found: { start: number; end: number } | undefined;
  for (const { 0: token, index } of text.matchAll(tokens)) {
    const closes = token === "}" || token === "]";
    if (closes) depth--;
    if (start !== undefined && (depth === 0 || (depth === 1 && token === ","))) {
      // Of equal keys the last one counts.
      found = { start, end: text.slice(0, index).trimEnd().length };
      start = undefined;
    }
    if (token === "{" || token === "[") depth++;
    if (depth !== 1) continue;
    if (token === ":" && key === name) {
      start = index + 1 + (/^\s*/.exec(text.slice(index + 1))?.[0].length ?? 0);
      key = undefined;
    } else if (token.startsWith('"') && start === undefined) {
      key = JSON.parse(token) as string;
    } else if (!closes) {
      key = undefined;
    }
  }
  return found;
}
