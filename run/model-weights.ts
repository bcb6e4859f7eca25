import { ModelWeights } from "#lib/checkpoint/index";
import { currentWeightName } from "#lib/models/facts";

/**
 * The weights of a Hugging Face model directory under the names that today's transformers gives them,
 * files of earlier years too.
 *
 * @throws E_FILE_NOT_FOUND, E_MODEL_DIRECTORY, E_WEIGHTS_INDEX, E_DUPLICATE_TENSOR
 */
export const openModelWeights = async (directory: string): Promise<ModelWeights> =>
  ModelWeights.open(directory, currentWeightName);
