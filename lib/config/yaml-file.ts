import { isUtf8 } from "node:buffer";
import { type Document, isMap, isScalar, LineCounter, parseDocument, type YAMLError } from "yaml";
import { LockstepError } from "#lib/core/errors/index";
import { openRegularFile, readAll } from "#lib/core/regular-file";
import { yamlDepthProblem } from "#lib/core/yaml-depth";
import type { SourcedValue } from "./flags.js";

/**
 * A configuration has some hundred short lines; a bigger file is another file by mistake. The parser takes up to 20 s
 * of a processor for a mebibyte of errors.
 */
const maxConfigBytes = 128 << 10;

/** Reads a flat YAML mapping; each value remembers its line. @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_CONFIG_SYNTAX */
export async function readConfigFile(file: string): Promise<ReadonlyMap<string, SourcedValue>> {
  const opened = await openRegularFile(file, "configuration");
  try {
    const { sizeBytes } = opened;
    if (sizeBytes > maxConfigBytes) {
      const reason = `it has ${sizeBytes} bytes, more than the limit of ${maxConfigBytes}.`;
      throw new LockstepError("E_CONFIG_SYNTAX", { file, reason });
    }
    const bytes = await readAll(opened);
    if (!isUtf8(bytes)) {
      const reason =
        "it is not UTF-8; iconv -f LATIN1 -t UTF-8 converts what an older editor wrote.";
      throw new LockstepError("E_CONFIG_SYNTAX", { file, reason });
    }
    return parseConfigText(bytes.toString("utf8"), file);
  } finally {
    await opened.handle.close();
  }
}

export function parseConfigText(text: string, file: string): ReadonlyMap<string, SourcedValue> {
  const lineCounter = new LineCounter();
  // Drawing the line of each of thousands of errors takes the square of a long line's length; one is told.
  const tooDeep = yamlDepthProblem(text);
  if (tooDeep !== undefined) {
    throw new LockstepError("E_CONFIG_SYNTAX", { file, reason: `${tooDeep}.` });
  }
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  const problem = document.errors[0];
  if (problem !== undefined) {
    throw new LockstepError("E_CONFIG_SYNTAX", { file, reason: reasonOf(problem, lineCounter) });
  }
  const values = new Map<string, SourcedValue>();
  if (document.contents === null) return values;
  if (!isMap(document.contents)) {
    throw new LockstepError("E_CONFIG_SYNTAX", { file, reason: "it is not a mapping of keys." });
  }
  const root = plainValues(document, file);
  for (const pair of document.contents.items) {
    if (!isScalar(pair.key)) continue;
    const key = String(pair.key.value);
    const line = lineCounter.linePos(pair.key.range?.[0] ?? 0).line;
    values.set(key, { value: root[key], where: `${file}:${line}` });
  }
  return values;
}

/** The parser's words with the place, and what a person most likely did. */
function reasonOf({ message, code, pos }: YAMLError, lineCounter: LineCounter): string {
  const { line, col } = lineCounter.linePos(pos[0]);
  const said = `${message.split("\n")[0] ?? message} at line ${line}, column ${col}.`;
  if (code === "BLOCK_AS_IMPLICIT_KEY" || code === "BAD_INDENT") {
    return `${said} Is a line below it indented by mistake?`;
  }
  return code === "DUPLICATE_KEY" ? `${said} A key is given twice.` : said;
}

/** @throws E_CONFIG_SYNTAX for aliases that multiply */
function plainValues(document: Document, file: string): Record<string, unknown> {
  try {
    return document.toJS({ maxAliasCount: 16 }) as Record<string, unknown>;
  } catch (cause) {
    const reason = `${cause instanceof Error ? cause.message : String(cause)}.`;
    throw new LockstepError("E_CONFIG_SYNTAX", { file, reason }, { cause });
  }
}
