import { listTracked, readSource } from "#tests/support/source-files";

/** A fenced block of a page. */
interface PageBlock {
  readonly page: string;
  /** Of the line that opens it. */
  readonly line: number;
  /** Empty where the fence names none. */
  readonly language: string;
  readonly text: string;
}

/** The pages that a person reads; those of results are written by programs. */
export const pages: readonly string[] = listTracked().filter(
  (path) => path.endsWith(".md") && !/^(bench\/results|tests)\//.test(path),
);

/** The fenced blocks of a page, those inside a list without its indentation. */
export function blocksOf(page: string): PageBlock[] {
  const blocks: PageBlock[] = [];
  let open: { line: number; language: string; indent: string; lines: string[] } | undefined;
  for (const [index, line] of readSource(page).split("\n").entries()) {
    const fence = /^(\s*)```(\w*)\s*$/.exec(line);
    if (open === undefined) {
      const [, indent = "", language = ""] = fence ?? [];
      if (fence !== null) open = { line: index + 1, language, indent, lines: [] };
    } else if (fence !== null) {
      const { lines, indent, ...place } = open;
      const text = lines.map((each) => `${each.replace(indent, "")}\n`).join("");
      blocks.push({ page, ...place, text });
      open = undefined;
    } else open.lines.push(line);
  }
  if (open !== undefined) throw new Error(`${page}:${open.line}: the block is not closed`);
  return blocks;
}

/** One command of a block of shell. */
export interface PageCommand {
  readonly place: string;
  /** One line, without the comment behind it. */
  readonly text: string;
}

export function commandsOf({ page, line, text }: PageBlock): PageCommand[] {
  const commands: PageCommand[] = [];
  let [start, before] = [0, ""];
  for (const [index, each] of text.split("\n").entries()) {
    if (before === "") start = line + 1 + index;
    const joined = before + each.trim().replace(/(^|\s+)# .*$/, "");
    before = joined.endsWith("\\") ? joined.slice(0, -1) : "";
    if (before === "" && joined !== "") commands.push({ place: `${page}:${start}`, text: joined });
  }
  return commands;
}

/** The words of a command as a shell would split them; of quotes only whole ones are understood. */
export const wordsOf = (command: string): string[] =>
  (command.match(/"[^"]*"|'[^']*'|\S+/g) ?? []).map((word) =>
    word.replace(/^(["'])(.*)\1$/s, "$2"),
  );
