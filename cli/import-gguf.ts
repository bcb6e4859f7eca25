import { parseArgs } from "node:util";
import { importGguf } from "#lib/checkpoint/index";
import type { FloatDtype } from "#lib/core/dtype";
import { bytesPerElement } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { inClaimedDirectory } from "#run/claimed-directory";
import { detailOnStandardError } from "#run/model-directory";

/** `lockstep import-gguf`. Returns the exit code; errors of the catalogue are thrown. */
export async function importGgufCommand(args: string[]): Promise<number> {
  const { file, directory, dtype, overwrite } = parse(args);
  const startedAt = performance.now();
  const isTerminal = process.stderr.isTTY;
  const { numParameters } = await inClaimedDirectory(
    directory,
    () =>
      importGguf(
        file,
        directory,
        ({ parametersDone, numParameters: total }) => {
          if (!isTerminal) return;
          const percent = Math.floor((100 * parametersDone) / total);
          process.stderr.write(`\rWriting weights: ${percent} %`);
        },
        { dtype, overwrite },
      ),
    { overwrite, onWaiting: detailOnStandardError },
  );
  if (isTerminal) process.stderr.write("\n");
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  const millions = (numParameters / 1e6).toFixed(1);
  process.stdout.write(
    `Imported ${millions} million parameters (${dtype}) into ${directory} in ${seconds} s.\n`,
  );
  return 0;
}

/** @throws E_USAGE */
function parse(args: string[]) {
  const fail = (problem: string): never => {
    throw new LockstepError("E_USAGE", { command: "import-gguf", problem });
  };
  const { values, positionals } = parseArguments(args, fail);
  const [file, directory, ...rest] = positionals;
  if (file === undefined || directory === undefined || rest.length > 0) {
    return fail("it takes a GGUF file and a new directory");
  }
  if (!Object.hasOwn(bytesPerElement, values.dtype)) {
    return fail(`--dtype is one of ${Object.keys(bytesPerElement).join(", ")}`);
  }
  const { overwrite } = values;
  const dtype = values.dtype as FloatDtype;
  return { file: expandHome(file), directory: expandHome(directory), dtype, overwrite };
}

function parseArguments(args: string[], fail: (problem: string) => never) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        dtype: { type: "string", default: "float32" },
        overwrite: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
}
