import { importGguf } from "#lib/checkpoint/index";
import { expandHome } from "#lib/core/home-path";
import { inClaimedDirectory } from "#run/claimed-directory";
import { detailOnStandardError } from "#run/model-directory";
import { readCommandLine, usageOf } from "./command-line.js";
import { directoryOf, floatDtypeOf } from "./export-options.js";
import { undoneBySignals } from "./undone-by-signals.js";

/** `lockstep import-gguf`. Returns the exit code; errors of the catalogue are thrown. */
export async function importGgufCommand(args: string[]): Promise<number> {
  const { file, directory, dtype, overwrite } = parse(args);
  const startedAt = performance.now();
  const isTerminal = process.stderr.isTTY;
  const importFile = () =>
    importGguf(
      file,
      directory,
      ({ parametersDone, numParameters: total }) => {
        if (!isTerminal) return;
        const percent = Math.floor((100 * parametersDone) / total);
        process.stderr.write(`\rWriting weights: ${percent} %`);
      },
      { dtype, overwrite },
    );
  const { numParameters } = await undoneBySignals(directory, () =>
    inClaimedDirectory(directory, importFile, { overwrite, onWaiting: detailOnStandardError }),
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
  const fail = usageOf("import-gguf");
  const options = {
    dtype: { type: "string", default: "float32" },
    overwrite: { type: "boolean", default: false },
  } as const;
  const { values, positionals } = readCommandLine(args, options, fail);
  const [file, directory, ...rest] = positionals;
  if (file === undefined || directory === undefined || rest.length > 0) {
    return fail("it takes a GGUF file and a new directory");
  }
  return {
    file: expandHome(file),
    directory: directoryOf(directory, fail),
    dtype: floatDtypeOf(values.dtype, fail),
    overwrite: values.overwrite,
  };
}
