import type { ResolvedConfig } from "#lib/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { NatsLink, type NatsSettings } from "#lib/wire/nats/connection";
import { RunCommands } from "#lib/wire/nats/run-commands";
import { EventPublisher, farewellMs } from "#lib/wire/nats/event-publisher";
import { carryOut, type CommandedRun } from "./commands.js";
import { LogFollower } from "./log-follower.js";
import { logDirectoryOf } from "./supervisor.js";
import type { StartedRun } from "./start.js";

/** Until the run begins without a server; the connection is tried on. */
const firstConnectionMs = 5_000;

/** Publishes a run's events to NATS, where its configuration names a server. */
export class EventPublishing {
  readonly #publisher: EventPublisher;
  readonly #logs: LogFollower;
  readonly #note: (text: string) => void;
  readonly #closeUnused: () => Promise<void>;

  private constructor(
    publisher: EventPublisher,
    logs: LogFollower,
    {
      note,
      closeUnused,
    }: { readonly note: (text: string) => void; readonly closeUnused: () => Promise<void> },
  ) {
    this.#publisher = publisher;
    this.#logs = logs;
    this.#note = note;
    this.#closeUnused = closeUnused;
  }

  /**
   * A server that is away holds nothing back: events wait for it.
   *
   * @returns undefined where no server is named
   * @throws what an address, a credential or a refusal of the server comes to
   */
  static async open(
    config: ResolvedConfig,
    bus: InProcessEventBus,
    commanded: () => CommandedRun,
  ): Promise<EventPublishing | undefined> {
    const settings = natsSettings(config);
    if (settings === undefined) return undefined;
    const note = (text: string): void => bus.publish({ type: "note", text });
    const connect = (): Promise<NatsLink> =>
      NatsLink.open(settings, {
        role: "coordinator",
        name: `lockstep coordinator of ${config.run_name ?? config.output_dir}`,
        onNews: note,
        timeoutMs: firstConnectionMs,
      });
    let commands: RunCommands | undefined;
    let first: NatsLink | undefined = await unlessAway(connect, note);
    const publisher = new EventPublisher(bus, {
      connect: async () => {
        const opened = first ?? (await connect());
        first = undefined;
        return opened;
      },
      onStreaming: (link, run) => {
        commands?.close();
        commands = new RunCommands(link, run, (action) => carryOut(action, commanded()));
      },
      retention: {
        maxAgeDays: config.nats_events_max_age_days,
        maxGigabytes: config.nats_events_max_gb,
      },
      onNews: note,
    });
    const logs = new LogFollower(logDirectoryOf(config.output_dir), (event) => bus.publish(event));
    bus.subscribe(({ type }) => {
      // The run's end is its last event: what workers say after it stays in their logs.
      if (type === "checkpoint.saved") logs.look();
    });
    // One of a run that failed before it began.
    const closeUnused = async (): Promise<void> => {
      await first?.close();
      first = undefined;
    };
    return new EventPublishing(publisher, logs, { note, closeUnused });
  }

  /** For metrics. */
  get figures(): EventPublisher["figures"] {
    return this.#publisher.figures;
  }

  /** The run is known; what was told before is published with it. */
  begin({ record: { runId }, started: { runName } }: StartedRun, epoch: number): void {
    this.#publisher.begin({ runId, runName, epoch });
  }

  /** Ends once what was told of the run is stored, or the server has had its time for it. */
  async close(): Promise<void> {
    this.#logs.close();
    const lost = await this.#publisher.close(farewellMs);
    await this.#closeUnused();
    if (lost > 0) {
      this.#note(`warning: ${lost} of the run's last events did not reach NATS and are not kept`);
    }
  }
}

/** Where a configuration leads to NATS; undefined: nowhere. */
export function natsSettings(config: ResolvedConfig): NatsSettings | undefined {
  if (config.nats_url === null) return undefined;
  return {
    url: config.nats_url,
    credentialsFile: config.nats_credentials_file,
    tokenFile: config.nats_token_file,
    tlsCaFile: config.nats_tls_ca_file,
    tlsCertFile: config.nats_tls_cert_file,
    tlsKeyFile: config.nats_tls_key_file,
    insecure: config.insecure,
  };
}

async function unlessAway(
  connect: () => Promise<NatsLink>,
  note: (text: string) => void,
): Promise<NatsLink | undefined> {
  try {
    return await connect();
  } catch (error) {
    if (!isLockstepError(error) || error.code !== "E_NATS_UNAVAILABLE") throw error;
    note(`warning: ${error.message} The run goes on; its events wait for the server.`);
    return undefined;
  }
}
