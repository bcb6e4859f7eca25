import { LockstepError } from "#lib/core/errors/index";
import type { ModelWeights } from "./model-weights.js";

const headName = "lm_head.weight";
/** Elements compared at a time: two of 4 MiB in memory. */
const chunkElements = 1 << 20;

/**
 * For a model whose configuration ties the head to the embedding: some checkpoints store the head too.
 * transformers 5 then takes the head as it is unless it repeats the embedding, transformers 4 never did.
 *
 * @param embeddingName the embedding table; undefined where the model has none of a known name
 * @throws E_MODEL_UNSUPPORTED where the stored head has values of its own
 */
export async function checkTiedHead(
  weights: ModelWeights,
  embeddingName: string | undefined,
): Promise<void> {
  if (!weights.has(headName) || embeddingName === undefined) return;
  const numElements = (name: string): number =>
    weights.info(name).shape.reduce((product, dim) => product * dim, 1);
  const total = numElements(embeddingName);
  let isEqual = numElements(headName) === total;
  for (let start = 0; isEqual && start < total; start += chunkElements) {
    const span = { start, count: Math.min(chunkElements, total - start) };
    const head = await weights.readFloat32(headName, undefined, span);
    const embedding = await weights.readFloat32(embeddingName, undefined, span);
    isEqual = head.every((value, i) => Object.is(value, embedding[i]));
  }
  if (isEqual) return;
  throw new LockstepError("E_MODEL_UNSUPPORTED", {
    what: `${headName} with values of its own beside "tie_word_embeddings": true`,
  });
}
