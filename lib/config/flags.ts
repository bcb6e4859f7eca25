import { parse } from "yaml";
import { LockstepError } from "#lib/core/errors/index";
import { yamlDepthProblem } from "#lib/core/yaml-depth";

/** A value together with the place that set it, for messages. */
export interface SourcedValue {
  readonly value: unknown;
  /** "file.yaml:3" or "flag --key". */
  readonly where: string;
}

interface ParsedFlags {
  readonly values: ReadonlyMap<string, SourcedValue>;
  readonly positionals: readonly string[];
}

/** A word that a switch may take as its value: `--bf16 false`. */
const switchWord = /^(true|false|yes|no|on|off|0|1|auto)$/i;
const trueWord = /^(true|yes|on|1)$/i;

/** `auto` stays a word: the key that takes it decides what it is. */
const switchValue = (word: string): boolean | string =>
  /^auto$/i.test(word) ? word.toLowerCase() : trueWord.test(word);

/**
 * Reads `--key value`, `--key=value`, `--switch`, `--no-switch`, with dashes or underscores. Values are
 * YAML scalars or flow collections, so a number is a number and `[a, b]` a list; keys of `textKeys` stay
 * text. A key given twice is an error.
 *
 * @param isSwitch whether the key, in snake case, is a boolean
 */
export function parseFlags(
  args: readonly string[],
  isSwitch: (key: string) => boolean,
  isText: (key: string) => boolean = () => false,
  isKnown: (key: string) => boolean = () => true,
): ParsedFlags {
  const values = new Map<string, SourcedValue>();
  const positionals: string[] = [];
  const set = (key: string, value: unknown, flag: string): void => {
    if (values.has(key)) {
      throw new LockstepError("E_CONFIG_FLAG", { argument: flag, reason: "it is given twice" });
    }
    values.set(key, { value, where: `flag ${flag}` });
  };
  for (let i = 0; i < args.length; i++) {
    const argument = args[i] ?? "";
    if (argument === "--") {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!argument.startsWith("--")) {
      positionals.push(argument);
      continue;
    }
    const equals = argument.indexOf("=");
    const flag = equals < 0 ? argument : argument.slice(0, equals);
    const key = flag.slice(2).replaceAll("-", "_");
    const read = (raw: string): unknown => (isText(key) ? raw : parseScalar(raw, argument));
    if (equals >= 0) {
      const raw = argument.slice(equals + 1);
      set(key, isSwitch(key) && switchWord.test(raw) ? switchValue(raw) : read(raw), flag);
      continue;
    }
    const next = args[i + 1];
    if (isSwitch(key)) {
      // A word is no configuration file, whose name has an ending or a path.
      if (next !== undefined && /^\w+$/.test(next) && !switchWord.test(next)) {
        const reason = `${next} is no value of ${flag}, which takes true, false or nothing`;
        throw new LockstepError("E_CONFIG_FLAG", { argument: `${flag} ${next}`, reason });
      }
      if (next !== undefined && switchWord.test(next)) i++;
      set(key, next !== undefined && switchWord.test(next) ? switchValue(next) : true, flag);
    } else if (key.startsWith("no_") && isSwitch(key.slice(3))) {
      set(key.slice(3), false, flag);
    } else if (!isKnown(key) && (next === undefined || next.startsWith("--"))) {
      // Whoever knows the keys says that this is none of them.
      set(key, true, flag);
    } else if (next === undefined || next.startsWith("--")) {
      throw new LockstepError("E_CONFIG_FLAG", {
        argument,
        reason: "a value must follow",
      });
    } else {
      set(key, read(next), flag);
      i++;
    }
  }
  return { values, positionals };
}

function parseScalar(raw: string, argument: string): unknown {
  if (raw.trim() === "") {
    // A shell puts nothing in the place of a variable that is not set.
    const reason = "its value is empty; null says that there is none";
    throw new LockstepError("E_CONFIG_FLAG", { argument, reason });
  }
  const tooDeep = yamlDepthProblem(raw);
  if (tooDeep !== undefined) {
    throw new LockstepError("E_CONFIG_FLAG", { argument, reason: `of its value, ${tooDeep}` });
  }
  try {
    return parse(raw, { prettyErrors: false }) as unknown;
  } catch (cause) {
    throw new LockstepError(
      "E_CONFIG_FLAG",
      { argument, reason: "its value is neither a YAML scalar nor a list in brackets" },
      { cause },
    );
  }
}
