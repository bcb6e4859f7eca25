import { entry } from "./define.js";

/** Failures of the reducer shards: arithmetic, arriving gradients, published versions. */
export const reducerErrors = {
  E_SHARD_TOO_LARGE: entry<{
    numElements: number;
    neededBytes: number;
    limitBytes: number;
    shardsNeeded: number;
  }>(
    (d) =>
      `A reducer shard of ${d.numElements} elements needs ${d.neededBytes} bytes, more than the ${d.limitBytes} of one wasm memory; this model needs at least ${d.shardsNeeded} shards.`,
    "Raise reducer_shards, or where shards are processes the number of reducers, to the number named above.",
  ),
  E_SHARD_STATE: entry<{ shardIndex: number; call: string; expected: string; got: string }>(
    (d) =>
      `Reducer shard ${d.shardIndex} was asked to ${d.call}: expected ${d.expected}, got ${d.got}.`,
    "This is a defect of the caller; report it with the run's log.",
  ),
  E_SHARD_FAILED: entry<{ shardIndex: number; reason: string }>(
    (d) => `Reducer shard ${d.shardIndex} failed: ${d.reason}.`,
    "The run goes back to its last checkpoint by itself, max_rollbacks times in a row; if memory ran out, use a machine with more of it.",
  ),
  E_SHARD_NOT_OPEN: entry<{ call: string }>(
    (d) => `This reducer process has no shard yet, and was asked to ${d.call}.`,
    "It was started anew, and what it held is gone; the coordinator goes back to its last checkpoint.",
  ),
  E_SHARD_LOST: entry<{ shardIndex: number; address: string; reason: string }>(
    (d) => `Reducer shard ${d.shardIndex} at ${d.address} is lost: ${d.reason}.`,
    "Look at that process and its machine; when it is there again the run goes on from its last checkpoint.",
  ),
  E_REDUCER_FILES: entry<{ directory: string; reason: string }>(
    (d) => `A reducer cannot load its part from ${d.directory}: ${d.reason}.`,
    "Reducers read the model and checkpoints by themselves: put model_name_or_path and output_dir where every one of them sees the same files under the same path.",
  ),
  E_SHARD_COPY: entry<{ shardIndex: number; address: string; reason: string }>(
    (d) =>
      `A process of reducer shard ${d.shardIndex} cannot fetch what ${d.address} has: ${d.reason}.`,
    "Reducers call each other at the addresses of the key reducers: see that these can be reached from every one of them.",
  ),
  E_SHARD_DIVERGED: entry<{ shardIndex: number; addresses: string; what: string }>(
    (d) =>
      `The two copies of reducer shard ${d.shardIndex}, at ${d.addresses}, have different ${d.what}.`,
    "Memory of one of the machines has changed by itself, and two copies cannot tell which one is right: all shards go back to the last checkpoint, before which both were compared. Test the memory of both where it happens again.",
  ),
  E_SHARD_BUSY: entry<{ step: number; group: number; maxAssemblies: number }>(
    (d) =>
      `The gradient of step ${d.step}, group ${d.group} found no free buffer: all ${d.maxAssemblies} hold other groups.`,
    "Send it again; buffers become free when the groups before it have arrived.",
    { retryable: true },
  ),
  E_PUSH_GROUP: entry<{ step: number; group: number; numGroups: number }>(
    (d) =>
      `A gradient of step ${d.step} names group ${d.group}; groups are 0 to ${d.numGroups - 1}.`,
    "Worker and coordinator disagree on the plan: start both from the same version.",
  ),
  E_PUSH_STEP: entry<{ step: number; group: number; openStep: number }>(
    (d) =>
      `A gradient of step ${d.step}, group ${d.group} came before its step was open (step ${d.openStep} is).`,
    "Send a gradient only under a lease of its step.",
  ),
  E_LEASE_NOT_HELD: entry<{
    worker: string;
    lease: number;
    step: number;
    group: number;
    holder: string;
  }>(
    (d) =>
      `Worker ${d.worker} does not hold lease ${d.lease} of step ${d.step}, group ${d.group}${d.holder === "" ? "" : ` (it is of ${d.holder})`}.`,
    "The group was given to another worker; the worker goes on with its next one by itself.",
  ),
  E_PUSH_CHUNK: entry<{
    step: number;
    group: number;
    offset: number;
    payloadBytes: number;
    expectedOffset: number;
    rangeBytes: number;
    reason: string;
  }>(
    (d) =>
      `A chunk of step ${d.step}, group ${d.group} ${d.reason}: bytes ${d.offset} to ${d.offset + d.payloadBytes}, expected from ${d.expectedOffset} within ${d.rangeBytes}.`,
    "Chunks of a gradient are sent in order, each byte once; the group has to be sent again.",
    { retryable: true },
  ),
  E_PUSH_INCOMPLETE: entry<{
    step: number;
    group: number;
    receivedBytes: number;
    rangeBytes: number;
  }>(
    (d) =>
      `The gradient of step ${d.step}, group ${d.group} ended after ${d.receivedBytes} of ${d.rangeBytes} bytes.`,
    "The group has to be sent again.",
    { retryable: true },
  ),
};
