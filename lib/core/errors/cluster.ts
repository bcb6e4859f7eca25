import { hostPort } from "#lib/core/address";
import { counted } from "#lib/core/format";
import { entry } from "./define.js";

/** Failures between processes: connections, frames, leases, workers. */
export const clusterErrors = {
  E_FRAME_INVALID: entry<{ reason: string; peer?: string }>(
    (d) =>
      `A bulk frame${d.peer === undefined ? "" : ` from ${d.peer}`} is not acceptable: ${d.reason}.`,
    "Run the same version of Lockstep on the coordinator and on every worker.",
  ),
  E_FRAME_CORRUPT: entry<{ step: number; group: number; offset: number; payloadBytes: number }>(
    (d) =>
      `The checksum of a frame is wrong (step ${d.step}, group ${d.group}, ${d.payloadBytes} bytes at byte ${d.offset}): the bytes changed on their way.`,
    "It is sent again; if it happens often, check the memory and the network of the worker that is named in the log.",
    { retryable: true },
  ),
  E_TRANSFER_INCOMPLETE: entry<{
    address: string;
    what: string;
    receivedBytes: number;
    expectedBytes: number;
  }>(
    (d) =>
      `The transfer of ${d.what} with ${d.address} ended after ${d.receivedBytes} of ${d.expectedBytes} bytes.`,
    "It is tried again; if it happens often, check the network between the two machines.",
    { retryable: true },
  ),
  E_VERSION_NOT_PUBLISHED: entry<{ version: number; published: readonly number[] }>(
    (d) =>
      `Parameter version ${d.version} is not published here; available: ${d.published.join(", ") || "none"}.`,
    "The worker asks for its next task again; nothing needs to be done.",
    { retryable: true },
  ),
  E_TOO_MANY_WORKERS: entry<{ host: string; limit: number }>(
    (d) => `A worker of ${d.host} cannot join: ${d.limit} take part, as many as may.`,
    "Look for what starts workers again and again; one that is silent is forgotten after heartbeat_timeout_ms.",
    { retryable: true },
  ),
  E_JOIN_TOKEN: entry<{ peer: string }>(
    (d) => `The join token of ${d.peer} is missing or wrong.`,
    "Give the worker the same join token as the coordinator (join_token_file).",
  ),
  E_LISTEN_FAILED: entry<{ host: string; port: number; reason: string }>(
    (d) => `Listening on ${hostPort(d.host, d.port)} failed: ${d.reason}.`,
    "Choose an address of this machine and a free port (0 takes any free port).",
  ),
  E_RPC_UNAVAILABLE: entry<{ method: string; address: string; reason: string }>(
    (d) => `${d.method} could not reach ${d.address}: ${d.reason}.`,
    "Check that the coordinator runs and that its address, TLS files and firewall are right; workers try again by themselves.",
    { retryable: true },
  ),
  E_RPC_TIMEOUT: entry<{ method: string; address: string; timeoutMs: number }>(
    (d) => `${d.method} got no answer from ${d.address} within ${d.timeoutMs} ms.`,
    "Check the load and the network of both machines; workers try again by themselves.",
    { retryable: true },
  ),
  E_RPC_FAILED: entry<{
    method: string;
    address: string;
    status: string;
    remoteCode: string;
    reason: string;
  }>(
    (d) =>
      `${d.method} was refused by ${d.address} (${d.status}${d.remoteCode === "" ? "" : `, ${d.remoteCode}`}): ${d.reason}`,
    "The reason is the other side's; its log tells more.",
  ),
  E_MESSAGE_INVALID: entry<{ message: string; field: string; reason: string }>(
    (d) => `The ${d.message} message is not acceptable: ${d.field} ${d.reason}.`,
    "Run the same version of Lockstep on the coordinator and on every worker.",
  ),
  E_PROTOCOL_VERSION: entry<{ expected: number; got: number; peer: string }>(
    (d) => `${d.peer} speaks protocol version ${d.got}; this coordinator speaks ${d.expected}.`,
    "Run the same version of Lockstep on the coordinator and on every worker.",
  ),
  E_DEVICE_KIND_MISMATCH: entry<{ worker: string; expected: string; got: string }>(
    (d) =>
      `Worker ${d.worker} has the device kind "${d.got}", but this run computes on "${d.expected}": its sums would differ in their last bits.`,
    "Use machines of one kind, or set deterministic: false to give up equal bits.",
  ),
  E_DEVICE_KIND_GONE: entry<{ expected: string; got: string; seconds: number; workers: number }>(
    (d) =>
      `No worker with the device kind "${d.expected}", on which this run computes, has been here for ${d.seconds} s, and ${counted(d.workers, "worker")} of other kinds came, the last with "${d.got}".`,
    "What was trained is saved. Start workers of the run's kind and go on with it, start a new one, or set deterministic: false to give up equal bits.",
  ),
  E_UNKNOWN_WORKER: entry<{ worker: string }>(
    (d) => `No worker ${d.worker} is registered here; it may have been declared dead.`,
    "The worker registers again by itself; nothing needs to be done.",
    { retryable: true },
  ),
  E_STALE_RUN: entry<{ worker: string; expected: string; got: string }>(
    (d) =>
      `A call of worker ${d.worker || "without a name"} belongs to ${d.got}; here is ${d.expected}.`,
    "A worker registers again by itself; if it does not, it was started for another run at this address.",
    { retryable: true },
  ),
  E_STALE_COORDINATOR: entry<{ expected: string; got: string }>(
    (d) => `A reducer shard works for ${d.expected}; a coordinator of ${d.got} called it.`,
    "Where a later coordinator of the run has taken over, this one ends and writes nothing more; nothing is to be done. For another run start reducers of its own, or wait until the run that has these is over.",
  ),
  E_WORKER_QUARANTINED: entry<{ worker: string; reason: string }>(
    (d) => `Worker ${d.worker} may not take part in this run: ${d.reason}.`,
    "Look at the machine and the device of that worker (memory, driver, versions); a process that is started anew may join.",
  ),
  E_GROUP_DIVERGED: entry<{ step: number; group: number; workers: string }>(
    (d) =>
      `Workers computed different bits for group ${d.group} of step ${d.step}, and no two agree: ${d.workers}.`,
    "One of these devices computes wrongly, or they are not of one kind; find it by leaving out one after the other. What was trained before is saved.",
  ),
  E_WEIGHTS_DIVERGED: entry<{ workers: string; space: string; version: number }>(
    (d) =>
      `Workers were sent different ${d.space} weights under one name, version ${d.version}: ${d.workers}.`,
    "The memory of a reducer shard or of one of these workers is faulty. What was trained before is saved; go on with it on other machines.",
  ),
  E_RUN_OVER: entry<{ directory: string }>(
    (d) =>
      d.directory === ""
        ? "The run is over."
        : `The run is over: its result is in ${d.directory} of the coordinator's machine.`,
    "The worker ends by itself; nothing needs to be done.",
  ),
  E_RUN_STOPPED: entry<{ runId: string }>(
    (d) =>
      `${d.runId === "" ? "The run" : `Run ${d.runId}`} was stopped, and may go on at the same address.`,
    "Start the coordinator again with the same configuration; workers wait for it as long as --return-timeout-ms says.",
  ),
  E_SHARD_ADDRESS: entry<{ address: string; coordinator: string; reason: string }>(
    (d) =>
      `The coordinator ${d.coordinator} sent ${JSON.stringify(d.address)} as the address of a reducer shard, which nobody can call: ${d.reason}.`,
    "Run the same version of Lockstep everywhere, and set the coordinator's advertise_host to a name or an address at which workers reach it.",
  ),
  E_SHARD_UNREACHABLE: entry<{
    address: string;
    coordinator: string;
    seconds: number;
    reason: string;
  }>(
    (d) =>
      `The coordinator ${d.coordinator} answers, but its reducer shard ${d.address} was not reachable for ${d.seconds} s: ${d.reason}.`,
    "Let workers through to the coordinator's port and to the reducer_shards ports after it; where they call it by another name than its own, set advertise_host to that name.",
  ),
  E_OTHER_RUN: entry<{ expected: string; found: string; directory: string }>(
    (d) =>
      `The worker waits for run ${d.expected}; here is run ${d.found}, which is over, with its result in ${d.directory} of the coordinator's machine.`,
    "Let the run that was stopped go on at its address; the worker ends with exit code 75.",
  ),
  E_COORDINATOR_UNREACHABLE: entry<{ address: string; seconds: number; reason: string }>(
    (d) => `The coordinator ${d.address} was not reachable for ${d.seconds} s: ${d.reason}`,
    "Check that the coordinator runs and that the worker's --coordinator address is right.",
  ),
  E_ENGINE_CRASHED: entry<{ reason: string }>(
    (d) => `The engine thread of the worker ended unexpectedly: ${d.reason}.`,
    "If the memory was exhausted, use a smaller per_device_train_batch_size or max_length.",
  ),
  E_ENGINE_FAILED: entry<{ code: string; reason: string }>(
    (d) => `The engine of the worker failed${d.code === "" ? "" : ` (${d.code})`}: ${d.reason}`,
    "The stack in the worker's log shows the operation.",
  ),
  E_WORKER_FAILED: entry<{ worker: string; code: string; reason: string; attempts: number }>(
    (d) =>
      `Worker ${d.worker} reported ${d.code || "an error"} (failure ${d.attempts} without progress in between): ${d.reason}`,
    "The same work would fail on any worker; look at the reason, and at the worker's log.",
  ),
  E_TOKEN_COUNT: entry<{
    worker: string;
    step: number;
    group: number;
    expected: number;
    got: number;
  }>(
    (d) =>
      `Worker ${d.worker} counted ${d.got} supervised tokens in group ${d.group} of step ${d.step}, the plan has ${d.expected}.`,
    "The engine of a worker counts targets in another way than the data plan; use one version everywhere.",
  ),
  E_NON_FINITE_GRADIENT: entry<{ step: number; loss: number; skipped: number }>(
    (d) =>
      `The gradient of step ${d.step} is not finite (loss ${d.loss}), like those of the ${d.skipped - 1} steps before it; the last good checkpoint is untouched.`,
    "Lower the learning rate, lengthen the warm-up, or train in fp32.",
  ),
  E_NON_FINITE_WEIGHTS: entry<{ step: number; tensor: string; value: number }>(
    (d) =>
      `After step ${d.step} tensor ${d.tensor} holds ${d.value}; nothing of that step is saved, and earlier checkpoints are untouched.`,
    "Lower the learning rate or lengthen the warm-up.",
  ),
  E_FISHER_UNUSABLE: entry<{ numRows: number; got: string }>(
    (d) =>
      `The Fisher information of ${d.numRows} general rows cannot be used: ${d.got}, and EWC needs a finite mean of their squares above 0.`,
    "Look at general_dataset with `lockstep data preview`, or train in fp32; ewc_lambda: 0 trains without EWC.",
  ),
  E_NO_UPDATE: entry<{ numSteps: number }>(
    (d) =>
      `None of the ${d.numSteps} steps had a finite gradient, so the weights are those that the run started from; no result is saved.`,
    "With fp16 the loss scale begins at 65536 and halves with each such step: take more steps, or bf16 or fp32. Otherwise lower the learning rate.",
  ),
};
