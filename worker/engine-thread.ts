import { workerData } from "node:worker_threads";
import type { CreateTrainingEngine, TrainingEngine } from "#lib/core/job";
import { serveThread } from "#lib/core/thread-client";
import { EngineFingerprints } from "./fingerprints.js";
import type { EngineCall, EngineReady, EngineThreadData, EngineValue } from "./engine-protocol.js";

/** The thread in which an engine computes, synchronously, while another one keeps the connections. */
const data = workerData as EngineThreadData;

async function perform(
  engine: TrainingEngine,
  fingerprints: EngineFingerprints,
  call: EngineCall,
): Promise<EngineValue> {
  switch (call.op) {
    case "fingerprint":
      return fingerprints.take();
    case "loadFrozen":
      if (call.isDigested) fingerprints.given("frozen", call.piece, call.wireBytes);
      engine.loadFrozen?.(call.piece, call.wireBytes);
      return undefined;
    case "loadParameters":
      if (call.isDigested) fingerprints.given("trained", call.piece, call.wireBytes);
      engine.loadParameters(call.wireBytes, call.piece);
      return undefined;
    case "accumulate": {
      const { batch, gradScale, first, squares, buffer } = call;
      const into = buffer === undefined ? undefined : data.gradients[buffer];
      if (!squares) return engine.accumulate(batch, gradScale, first, into);
      if (engine.accumulateSquares === undefined) {
        throw new RangeError("the engine squares no gradients, which ewc_lambda needs");
      }
      return engine.accumulateSquares(batch, first, into);
    }
    case "evaluate":
      return engine.evaluate(call.batch);
    case "generate":
      return engine.generate(call.prompt, call.maxNewTokens, call.endTokenIds);
    case "close":
      engine.close();
      return undefined;
  }
}

await serveThread<EngineReady, EngineCall, EngineValue>(async () => {
  const module = (await import(data.engineModule)) as { readonly default: CreateTrainingEngine };
  const engine = await module.default(data.job);
  const fingerprints = new EngineFingerprints(data.job, engine);
  const { plannedBytes } = engine;
  const wireBytes = data.gradients.reduce((sum, { length }) => sum + length, data.parameterBytes);
  return {
    ready: plannedBytes === undefined ? undefined : plannedBytes + wireBytes,
    handle: (call) => perform(engine, fingerprints, call),
    isLast: ({ op }) => op === "close",
  };
});
