import { parentPort, workerData } from "node:worker_threads";
import { isLockstepError } from "#lib/core/errors/index";
import type { CreateTrainingEngine, TrainingEngine } from "#lib/core/job";
import type {
  EngineCall,
  EngineError,
  EngineReply,
  EngineRequest,
  EngineThreadData,
  EngineValue,
} from "./engine-protocol.js";

/** The thread in which an engine computes, synchronously, while another one keeps the connections. */
const port = parentPort;
if (port === null) throw new Error("engine-thread runs as a worker thread only");
const data = workerData as EngineThreadData;

const reply = (message: EngineReply): void => port.postMessage(message);

function describe(error: unknown): EngineError {
  if (!(error instanceof Error)) {
    return { code: "", message: String(error), stack: "", retryable: true };
  }
  return {
    code: isLockstepError(error) ? error.code : "",
    message: error.message,
    stack: error.stack ?? "",
    retryable: isLockstepError(error) ? error.retryable : true,
  };
}

function perform(engine: TrainingEngine, call: EngineCall): EngineValue {
  switch (call.op) {
    case "loadFrozen":
      engine.loadFrozen?.(call.piece, call.wireBytes);
      return undefined;
    case "loadParameters":
      engine.loadParameters(data.parameters);
      return undefined;
    case "accumulate":
      return engine.accumulate(
        call.batch,
        call.gradScale,
        call.first,
        call.buffer === undefined ? undefined : data.gradients[call.buffer],
      );
    case "evaluate":
      return engine.evaluate(call.batch);
    case "generate":
      return engine.generate(call.prompt, call.maxNewTokens, call.endTokenIds);
    case "close":
      engine.close();
      return undefined;
  }
}

try {
  const module = (await import(data.engineModule)) as { readonly default: CreateTrainingEngine };
  const engine = await module.default(data.job);
  port.on("message", ({ id, call }: EngineRequest) => {
    try {
      reply({ id, value: perform(engine, call) });
    } catch (error) {
      reply({ id, error: describe(error) });
    }
    if (call.op === "close") port.close();
  });
  const { plannedBytes } = engine;
  const wireBytes = [data.parameters, ...data.gradients].reduce(
    (sum, { length }) => sum + length,
    0,
  );
  reply({ id: 0, value: plannedBytes === undefined ? undefined : plannedBytes + wireBytes });
} catch (error) {
  reply({ id: 0, error: describe(error) });
}
