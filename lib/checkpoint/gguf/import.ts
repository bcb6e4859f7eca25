import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { saveAtomically, saveFilesAtomically } from "#lib/checkpoint/atomic-save";
import { isUnused } from "#lib/checkpoint/claim-folder";
import { weightsFileName } from "#lib/checkpoint/model-weights";
import { storedDtypeOf } from "#lib/checkpoint/safetensors-header";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { generationConfigText, llamaConfigText } from "./config.js";
import { decodeTensor } from "./decode.js";
import { readLlama, type TensorMapping } from "./llama.js";
import { GgufFile } from "./reader.js";
import { readTokenizer } from "./tokenizer.js";

interface ImportOptions {
  /** Type of the stored weights; float32 keeps the dequantised values exactly. */
  readonly dtype?: FloatDtype;
  /** Replaces the model's files in a directory that is not empty; its other files stay. */
  readonly overwrite?: boolean;
}

interface ImportProgress {
  readonly tensor: string;
  readonly tensorsDone: number;
  readonly numTensors: number;
  readonly parametersDone: number;
  readonly numParameters: number;
}

/**
 * Turns a GGUF file of the Llama architecture into a Hugging Face model directory. The directory
 * appears whole or not at all. Memory: the metadata and a few megabytes of one tensor.
 *
 * @returns the number of parameters written.
 */
export async function importGguf(
  file: string,
  directory: string,
  onProgress: (progress: ImportProgress) => void = () => {},
  options: ImportOptions = {},
): Promise<{ readonly numParameters: number }> {
  const dtype = options.dtype ?? "float32";
  const gguf = await GgufFile.open(file);
  try {
    const { hyperparameters, mappings } = await readLlama(gguf);
    const tokenizer = readTokenizer(gguf, hyperparameters.vocabSize);
    const numParameters = mappings.reduce((sum, { source }) => sum + elementsOf(source.shape), 0);
    const isEmpty = await isUnused(directory);
    if (!isEmpty && options.overwrite !== true) {
      throw new LockstepError("E_DIRECTORY_NOT_EMPTY", { directory });
    }
    // In a directory that is claimed the claim stays.
    await (existsSync(directory) ? saveFilesAtomically : saveAtomically)(
      directory,
      async (temporary) => {
        const texts: Readonly<Record<string, string | undefined>> = {
          "config.json": llamaConfigText(hyperparameters, tokenizer.ids, dtype),
          "generation_config.json": generationConfigText(tokenizer.ids),
          "tokenizer.json": `${JSON.stringify(tokenizer.tokenizer, null, 1)}\n`,
          "tokenizer_config.json": `${JSON.stringify(tokenizer.tokenizerConfig, null, 2)}\n`,
          "special_tokens_map.json": `${JSON.stringify(tokenizer.specialTokensMap, null, 2)}\n`,
          "chat_template.jinja": tokenizer.chatTemplate,
        };
        for (const [name, text] of Object.entries(texts)) {
          if (text !== undefined) await writeFile(join(temporary, name), text);
        }
        await writeWeights(gguf, join(temporary, weightsFileName), mappings, dtype, (progress) =>
          onProgress({ ...progress, numParameters }),
        );
      },
    );
    return { numParameters };
  } finally {
    await gguf.close();
  }
}

async function writeWeights(
  gguf: GgufFile,
  file: string,
  mappings: readonly TensorMapping[],
  dtype: FloatDtype,
  onProgress: (progress: Omit<ImportProgress, "numParameters">) => void,
): Promise<void> {
  const byName = new Map(mappings.map((mapping) => [mapping.name, mapping]));
  let tensorsDone = 0;
  let parametersDone = 0;
  await writeSafetensors(
    file,
    mappings.map(({ name, source }) => ({
      name,
      shape: source.shape,
      dtype: storedDtypeOf[dtype],
    })),
    async function* (name) {
      const mapping = byName.get(name) as TensorMapping;
      yield* decodeTensor(gguf, mapping, dtype);
      tensorsDone++;
      parametersDone += elementsOf(mapping.source.shape);
      onProgress({ tensor: name, tensorsDone, numTensors: mappings.length, parametersDone });
    },
  );
}

const elementsOf = (shape: readonly number[]): number =>
  shape.reduce((product, dim) => product * dim, 1);
