import { findModelDirectory } from "#run/model-directory";

// A process that finds a model, so that a test can kill it: node finding-process.js ID

const directory = await findModelDirectory(process.argv[2] ?? "", {
  onDetail: (detail) => void process.stdout.write(`${detail}\n`),
});
process.stdout.write(`found ${directory}\n`);
