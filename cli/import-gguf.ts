import { parseArgs } from "node:util";
import { importGguf } from "#lib/checkpoint/index";
import type { FloatDtype } from "#lib/core/dtype";
import { bytesPerElement } from "#lib/core/dtype";

const usage = `Usage: lockstep import-gguf FILE DIR [--dtype float32|bfloat16|float16] [--overwrite]

Reads a GGUF file of the Llama architecture (Q4_0, Q4_1, Q8_0, F16, BF16 or F32 tensors)
and writes a Hugging Face model directory that transformers and Lockstep load.
`;

/** `lockstep import-gguf`. Returns the exit code; errors of the catalogue are thrown. */
export async function importGgufCommand(args: string[]): Promise<number> {
  const parsed = parse(args);
  if (parsed === undefined) {
    process.stderr.write(usage);
    return 2;
  }
  if (parsed === "help") {
    process.stdout.write(usage);
    return 0;
  }
  const { file, directory, dtype, overwrite } = parsed;
  const startedAt = performance.now();
  const isTerminal = process.stderr.isTTY;
  const { numParameters } = await importGguf(
    file,
    directory,
    ({ parametersDone, numParameters: total }) => {
      if (isTerminal) {
        process.stderr.write(`\rWriting weights: ${Math.floor((100 * parametersDone) / total)} %`);
      }
    },
    { dtype, overwrite },
  );
  if (isTerminal) process.stderr.write("\n");
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  const millions = (numParameters / 1e6).toFixed(1);
  process.stdout.write(
    `Imported ${millions} million parameters (${dtype}) into ${directory} in ${seconds} s.\n`,
  );
  return 0;
}

function parse(
  args: string[],
): { file: string; directory: string; dtype: FloatDtype; overwrite: boolean } | "help" | undefined {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        dtype: { type: "string", default: "float32" },
        overwrite: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    if (values.help) return "help";
    const [file, directory, ...rest] = positionals;
    if (file === undefined || directory === undefined || rest.length > 0) return undefined;
    if (!Object.hasOwn(bytesPerElement, values.dtype)) return undefined;
    const dtype = values.dtype as FloatDtype;
    return { file, directory, dtype, overwrite: values.overwrite };
  } catch {
    // parseArgs throws a TypeError for an unknown option.
    return undefined;
  }
}
