import type { CreateTrainingEngine, TrainingEngine } from "#lib/core/job";
import { type ParameterLayout, wireOffsetBytes } from "#lib/core/parameter-layout";
import createEngine from "#lib/tuning/engine";

/**
 * The real engine, in a worker whose memory is faulty: once, a bit of a weight of the space of
 * LOCKSTEP_TEST_FLIP_SPACE is another one than it was sent. The spaces of tests have one piece.
 */
function flippedBit(layout: ParameterLayout): { readonly byte: number; readonly mask: number } {
  const tensor = layout.tensors.find(({ name }) => name.includes("q_proj"));
  if (tensor === undefined) throw new RangeError("The space has no q_proj");
  return { byte: wireOffsetBytes(layout, tensor.offset) + 1, mask: 0x04 };
}

const create: CreateTrainingEngine = async (job) => {
  const engine = await createEngine(job);
  const space = process.env["LOCKSTEP_TEST_FLIP_SPACE"];
  let numLoads = 0;
  /** The engine gets the piece with another bit than its sender gave it. */
  const flipping = (layout: ParameterLayout, bytes: Uint8Array, load: () => void): void => {
    const { byte, mask } = flippedBit(layout);
    bytes[byte] = (bytes[byte] as number) ^ mask;
    load();
    bytes[byte] = (bytes[byte] as number) ^ mask;
  };
  const flipped: TrainingEngine = {
    plannedBytes: engine.plannedBytes,
    loadFrozen: (piece, bytes) => {
      const load = (): void => engine.loadFrozen?.(piece, bytes);
      numLoads += 1;
      if (space === "frozen" && numLoads === 1 && job.frozen !== undefined) {
        flipping(job.frozen, bytes, load);
      } else load();
    },
    loadParameters: (bytes, piece) => {
      const load = (): void => engine.loadParameters(bytes, piece);
      numLoads += 1;
      if (space === "trained" && numLoads === 2) flipping(job.layout, bytes, load);
      else load();
    },
    accumulate: (...args) => engine.accumulate(...args),
    readHeld: (...args) => engine.readHeld?.(...args),
    evaluate: (batch) => engine.evaluate(batch),
    generate: (...args) => engine.generate(...args),
    close: () => engine.close(),
  };
  return flipped;
};
export default create;
