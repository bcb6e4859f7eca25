/** Columns that a line may be indented by; each level of a block takes one at least. */
const maxIndentColumns = 512;
/** Indicators (`- `, `? `, `: `) of a line, as each may begin another level; an entry of a list on one line has some. */
const maxLineIndicators = 1_000;
/** Brackets inside each other. */
const maxFlowDepth = 128;

/**
 * What of a YAML text may be nested deeper than a parser can follow: where its stack ends within a regular
 * expression, node ends the process. Counted without parsing, so brackets and indicators of a text count too.
 */
export function yamlDepthProblem(text: string): string | undefined {
  let flowDepth = 0;
  for (const [i, line] of text.split(/\r\n?|\n/).entries()) {
    const problem = (what: string, limit: number): string =>
      `line ${i + 1} has ${what}, and at most ${limit} are read`;
    const indent = /^[ \t]*/.exec(line)?.[0].length ?? 0;
    if (indent > maxIndentColumns) return problem(`${indent} blanks before it`, maxIndentColumns);
    const numIndicators = line.match(/[-?:](?=\s)/g)?.length ?? 0;
    if (numIndicators > maxLineIndicators) {
      return problem(`${numIndicators} indicators of blocks`, maxLineIndicators);
    }
    for (const bracket of line.match(/[[\]{}]/g) ?? []) {
      flowDepth = Math.max(0, flowDepth + (bracket === "[" || bracket === "{" ? 1 : -1));
      if (flowDepth > maxFlowDepth) return problem("brackets nested deeper", maxFlowDepth);
    }
  }
  return undefined;
}
