import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorStates } from "#lib/core/shard-arrays";
import { SafetensorsFile } from "./safetensors-file.js";
import type { StateFiles } from "./state-files.js";
import { writeTensors } from "./tensor-store.js";

/** Beside the shards' files, where the optimizer keeps something of whole tensors. */
const fileName = "optimizer-tensors.safetensors";
const format = "lockstep-tensor-states-1";

/** Writes what an optimizer keeps of whole tensors into the existing `directory`; no file where that is nothing. */
export async function writeTensorStates(directory: string, states: TensorStates): Promise<void> {
  const tensors = Object.entries(states).map(([name, data]) => ({
    ...{ name, data },
    shape: [data.length],
  }));
  if (tensors.length === 0) return;
  await writeTensors(join(directory, fileName), tensors, { metadata: { format } });
}

/**
 * Fills the arrays by name.
 *
 * @throws E_RESUME_MISMATCH where other arrays were kept, or of other sizes; E_CHECKPOINT_DAMAGED
 */
export async function readTensorStates(
  directory: string,
  states: TensorStates,
  files: StateFiles,
): Promise<void> {
  if (!(await files.names()).includes(fileName)) {
    const [missing] = Object.keys(states);
    if (missing !== undefined) throw otherStates(directory, `nothing of whole tensors`, missing);
    return;
  }
  const file = await SafetensorsFile.over(await files.open(fileName));
  try {
    if (file.metadata["format"] !== format) {
      const problem = `is not of format ${format}`;
      throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file: fileName, problem });
    }
    for (const [name, { numElements }] of file.tensors) {
      const wanted = states[name]?.length;
      if (wanted === numElements) continue;
      const kept = `${name} of ${numElements}`;
      throw otherStates(directory, kept, wanted === undefined ? "none" : `one of ${wanted}`);
    }
    for (const [name, into] of Object.entries(states)) {
      if (!file.tensors.has(name)) throw otherStates(directory, `no ${name}`, "one");
      await file.readFloat32(name, into);
    }
  } finally {
    await file.close();
  }
}

function otherStates(directory: string, kept: string, keeps: string): LockstepError {
  const differences = `its optimizer kept ${kept}, the run's keeps ${keeps}`;
  return new LockstepError("E_RESUME_MISMATCH", { directory, differences });
}
