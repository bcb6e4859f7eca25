import { entry } from "./define.js";

/** Failures with a NATS server: reaching it, what it allows, what it is. */
export const natsErrors = {
  E_NATS_URL: entry<{ url: string; problem: string }>(
    (d) => `The address ${d.url} of a NATS server cannot be used: ${d.problem}.`,
    "Write nats://HOST:PORT, or tls://HOST:PORT where the connection is to be encrypted; several servers of one cluster are separated by commas.",
  ),
  E_NATS_CREDENTIALS: entry<{ file: string; problem: string }>(
    (d) => `The NATS credentials in ${d.file} cannot be used: ${d.problem}.`,
    "The file holds what `nsc` writes into a .creds file, the seed of an nkey user (it begins with SU), or one line USER:PASSWORD.",
  ),
  E_NATS_INSECURE: entry<{ server: string; what: string }>(
    (d) =>
      `The ${d.what} would go to ${d.server} in clear text: the connection has no TLS, and the address is not this machine's loopback.`,
    "Write tls:// in its address, with the file of the authority where that is your own; name the server by 127.0.0.1 or localhost where it runs on this machine; or accept the risk with insecure: true.",
  ),
  E_NATS_UNAVAILABLE: entry<{ servers: string; reason: string }>(
    (d) => `No NATS server answers at ${d.servers}: ${d.reason}.`,
    "Check the address, that the server runs and that a firewall lets its port through.",
    { retryable: true },
  ),
  E_NATS_REFUSED: entry<{ servers: string; reason: string }>(
    (d) => `The NATS server at ${d.servers} refuses this client: ${d.reason}.`,
    "Check the files of credentials, token and TLS against the server's configuration.",
  ),
  E_NATS_VERSION: entry<{ server: string; version: string; least: string }>(
    (d) =>
      `The NATS server at ${d.server} is version ${d.version}; this takes ${d.least} or a later one.`,
    "Start a newer nats-server: older ones ignore in silence some of what streams and buckets are asked for.",
  ),
  E_NATS_STREAM: entry<{ what: string; reason: string }>(
    (d) => `NATS does not ${d.what}: ${d.reason}.`,
    "Check that JetStream is on for this account, that it has room, and what the user may do (docs/events.md).",
  ),
  E_EVENT_INVALID: entry<{ problem: string }>(
    (d) => `A message of an event stream is not acceptable: ${d.problem}.`,
    "Run the same version of Lockstep everywhere, and let nobody but coordinators publish there (docs/events.md).",
  ),
  E_RUN_UNKNOWN: entry<{ run: string; servers: string; known: string }>(
    (d) =>
      `The event stream of NATS at ${d.servers} has no run${d.run === "" ? "" : ` ${d.run}`}; ${d.known === "" ? "nobody has published one yet" : `the latest are ${d.known}`}.`,
    "Give the id of a queued job, a run's id, at least 4 characters of its beginning, or its run_name; a run is there once it has an output directory and is started with nats_url.",
  ),
  E_RUN_SILENT: entry<{ runId: string; epoch: number; problem: string }>(
    (d) => `Run ${d.runId} (epoch ${d.epoch}) does not answer: ${d.problem}.`,
    "Look with `lockstep watch` whether it has ended, or its coordinator died; one that begins again has another epoch.",
    { retryable: true },
  ),
  E_RUN_REFUSES: entry<{ runId: string; action: string; reason: string }>(
    (d) => `Run ${d.runId} refuses to ${d.action}: ${d.reason}`,
    "Look with `lockstep watch` what it is at, and tell it again when it trains.",
    { retryable: true },
  ),
  E_RUN_NOT_OPEN: entry<{ action: string }>(
    (d) => `Nothing is trained yet, so that there is nothing to ${d.action}.`,
    "Tell it again once it waits for workers or trains.",
    { retryable: true },
  ),
  E_LEASE_HELD: entry<{ name: string; by: string }>(
    (d) => `The run of the lease ${d.name} is led by ${d.by}.`,
    "Wait for that one, or let this one stand by (standby: true); two runs need two names in nats_lease.",
  ),
  E_LEASE_LOST: entry<{ name: string; reason: string }>(
    (d) => `This coordinator leads no more: of the lease ${d.name}, ${d.reason}.`,
    "Another coordinator goes on with the run, or does when it is started; this one has written nothing since.",
  ),
};
