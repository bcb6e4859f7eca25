import { describeKeys, loadConfig, printConfig, type ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { findSources, sourceFiles } from "#lib/data/index";
import { findModelDirectory } from "#run/model-directory";
import { refuseAdapter } from "#run/model-place";

/** `lockstep config`. Returns the exit code. */
export async function configCommand(args: readonly string[]): Promise<number> {
  if (args.length === 1 && args[0] === "--keys") {
    process.stdout.write(`${describeKeys()}\n`);
    return 0;
  }
  if (args.length === 0) {
    throw new LockstepError("E_USAGE", { command: "config", problem: "a file is expected" });
  }
  const { config, warnings } = await loadConfig(args);
  for (const warning of [...warnings, ...(await missingInputs(config))]) {
    process.stderr.write(`warning: ${warning}\n`);
  }
  process.stdout.write(printConfig(config));
  return 0;
}

/** What a run on this machine would end with at once; the file itself may be for another machine. */
async function missingInputs(config: ResolvedConfig): Promise<string[]> {
  const missing: string[] = [];
  const attempt = async (look: () => Promise<unknown>): Promise<void> => {
    try {
      await look();
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      missing.push(error.message);
    }
  };
  const { model_name_or_path: model, model_revision: revision } = config;
  await attempt(async () => {
    await refuseAdapter(await findModelDirectory(model, { revision, downloads: false }), model);
  });
  const { dataset_dir: datasetDir, columns } = config;
  for (const [purpose, names] of [
    ["train", config.dataset],
    ["validation", config.eval_dataset ?? []],
    ["train", config.general_dataset ?? []],
    ["validation", config.general_eval_dataset ?? []],
  ] as const) {
    for (const name of names) {
      await attempt(async () => {
        for (const source of await findSources([name], { datasetDir, columns })) {
          await sourceFiles(source, purpose);
        }
      });
    }
  }
  return missing;
}
