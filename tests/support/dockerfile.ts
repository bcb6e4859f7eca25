/** One instruction of a Dockerfile, its continuation lines joined. */
interface Instruction {
  readonly keyword: string;
  readonly text: string;
}

export interface Stage {
  readonly name: string;
  readonly image: string;
  readonly instructions: readonly Instruction[];
}

interface CopyInstruction {
  /** The stage that is copied from; undefined is the build context. */
  readonly from?: string;
  readonly sources: readonly string[];
  readonly destination: string;
}

/** Splits a Dockerfile into its stages. Knows what ours use, and refuses the rest. */
export function parseDockerfile(text: string): readonly Stage[] {
  const lines = text
    .split("\n")
    .filter((line) => !line.trimStart().startsWith("#"))
    .join("\n")
    .replace(/\\\n\s*/g, " ")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  const argumentsByName = new Map<string, string>();
  const stages: { name: string; image: string; instructions: Instruction[] }[] = [];
  for (const line of lines) {
    const [, keyword = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (!knownKeywords.has(keyword)) throw new Error(`Unknown instruction: ${line}`);
    if (keyword === "FROM") {
      const [, image = "", name = ""] = /^(\S+)(?:\s+AS\s+(\S+))?$/.exec(rest) ?? [];
      const filled = image.replace(/\$\{(\w+)\}/g, (_, variable: string) => {
        const value = argumentsByName.get(variable);
        if (value === undefined) throw new Error(`FROM uses ${variable}, which has no default`);
        return value;
      });
      stages.push({ name, image: filled, instructions: [] });
    } else if (stages.length === 0) {
      const [, name = "", value = ""] = /^(\w+)=(\S+)$/.exec(rest) ?? [];
      if (keyword !== "ARG" || name === "") throw new Error(`Before the first FROM: ${line}`);
      argumentsByName.set(name, value);
    } else {
      stages.at(-1)?.instructions.push({ keyword, text: rest });
    }
  }
  return stages;
}

const knownKeywords = new Set([
  "ARG",
  "CMD",
  "COPY",
  "ENTRYPOINT",
  "ENV",
  "EXPOSE",
  "FROM",
  "HEALTHCHECK",
  "RUN",
  "USER",
  "VOLUME",
  "WORKDIR",
]);

export function parseCopy(text: string): CopyInstruction {
  const words = text.split(/\s+/);
  const flags = words.filter((word) => word.startsWith("--"));
  const paths = words.filter((word) => !word.startsWith("--"));
  const from = flags.find((flag) => flag.startsWith("--from="))?.slice("--from=".length);
  const destination = paths.pop() ?? "";
  if (paths.length === 0) throw new Error(`COPY ${text} has no source`);
  if (flags.length > (from === undefined ? 0 : 1)) throw new Error(`Unknown flag: COPY ${text}`);
  return { sources: paths, destination, ...(from === undefined ? {} : { from }) };
}

/** The commands of a RUN instruction, split at `&&`. */
export function parseRun(text: string): readonly string[] {
  return text.split("&&").map((command) => command.trim());
}

/** The arguments of an instruction in exec form: a JSON list at its end. */
export function parseExec(text: string): readonly string[] {
  const list = /\[.*\]$/.exec(text)?.[0];
  if (list === undefined) throw new Error(`Not in exec form: ${text}`);
  return JSON.parse(list) as string[];
}

/**
 * Whether a .dockerignore lets a path into the build context: the last pattern that matches the path
 * or a folder above it decides. Knows `*`, `**` and `!`.
 */
export function isInContext(dockerignore: string, path: string): boolean {
  let included = true;
  for (const line of dockerignore.split("\n").map((l) => l.trim())) {
    if (line === "" || line.startsWith("#")) continue;
    const negated = line.startsWith("!");
    const pattern = negated ? line.slice(1) : line;
    const source = pattern
      .split("/")
      .map((part) =>
        part === "**" ? ".*" : part.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[^/]*"),
      )
      .join("/")
      .replace(/^\.\*\//, "(?:.*/)?");
    if (new RegExp(`^${source}(?:/.*)?$`).test(path)) included = negated;
  }
  return included;
}
