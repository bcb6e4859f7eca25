import type { Experiment } from "#bench/frame/experiment";
import type { Workspace } from "#bench/frame/workspace";

const documents = (workspace: Workspace): Promise<string> =>
  workspace.once("documents.json", (path) => workspace.ours("tokenise", "--write", path));

/** The same documents and as many calls on both sides; every token id is compared. */
export const tokenise: Experiment = {
  name: "tokenise",
  rows: [
    {
      name: "tokenise",
      what: "tokenising 100 MB on one thread, SmolLM2's tokenizer, against tokenizers (Rust)",
      unit: "MB/s",
      bar: 1,
      direction: "at least",
    },
  ],
  ours: async (workspace) => workspace.ours("tokenise", await documents(workspace)),
  peer: async (workspace) => workspace.peer("tokenise", await documents(workspace)),
  // The same tokens, all of them.
  tolerances: { numTokens: 0, idSum: 0 },
};
