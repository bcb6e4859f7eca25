import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import {
  isMissingFile,
  isRecord,
  maxModelTextBytes,
  readOptionalJson,
  readTextFile,
} from "./files.js";

/** Where transformers saves templates beside the default one, a file for each name. */
const additionalTemplates = "additional_chat_templates";
const templateExtension = ".jinja";

export interface ChatTemplateSource {
  readonly file: string;
  readonly text: string;
}

/**
 * The sources of a model directory's templates by name; one alone is `default`. Files count before what
 * `tokenizer_config.json` says: a text, a mapping, or a list of named ones.
 */
export async function readTemplateSources(
  directory: string,
): Promise<ReadonlyMap<string, ChatTemplateSource>> {
  const files = new Map<string, ChatTemplateSource>();
  const add = async (name: string, file: string): Promise<void> => {
    try {
      const options = { what: "chat template", limitBytes: maxModelTextBytes };
      files.set(name, { file, text: await readTextFile(file, options) });
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== "E_FILE_NOT_FOUND") throw error;
    }
  };
  await add("default", join(directory, "chat_template.jinja"));
  const folder = join(directory, additionalTemplates);
  for (const name of await filesOf(folder)) {
    if (name.endsWith(templateExtension)) {
      await add(name.slice(0, -templateExtension.length), join(folder, name));
    }
  }
  return files.size > 0 ? files : sourcesOfConfig(join(directory, "tokenizer_config.json"));
}

async function filesOf(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}

/** @throws E_TOKENIZER_INVALID where `chat_template` has another form */
async function sourcesOfConfig(file: string): Promise<ReadonlyMap<string, ChatTemplateSource>> {
  const value = (await readOptionalJson(file))?.chat_template ?? undefined;
  if (value === undefined) return new Map();
  const named: readonly unknown[] = Array.isArray(value)
    ? (value as unknown[])
    : isRecord(value)
      ? Object.entries(value).map(([name, template]) => ({ name, template }))
      : [{ name: "default", template: value }];
  return new Map(
    named.map((each) => {
      if (isRecord(each) && typeof each.name === "string" && typeof each.template === "string") {
        return [each.name, { file, text: each.template }];
      }
      const problem = "its chat_template is neither a text nor templates with names";
      throw new LockstepError("E_TOKENIZER_INVALID", { file, problem });
    }),
  );
}
