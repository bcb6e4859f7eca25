import { existsSync } from "node:fs";
import { join } from "node:path";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { classifierConfigFileName } from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import { maxModelConfigBytes } from "./model-directory.js";

/** The config.json of the classifier that an adapter makes of its base, where it is kept beside it. @throws E_JSON_FILE */
export async function readClassifierConfig(
  directory: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const file = join(directory, classifierConfigFileName);
  if (!existsSync(file)) return undefined;
  const config = await readJsonFile(file, "classifier's configuration", maxModelConfigBytes);
  if (isRecord(config)) return config;
  throw new LockstepError("E_JSON_FILE", { file, problem: "it is not an object" });
}
