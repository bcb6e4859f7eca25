import { resolve } from "node:path";
import { parseConfigText } from "#lib/config/index";
import type { Job } from "#lib/queue/job";
import type { NatsSettings } from "#lib/wire/nats/connection";
import { parseNatsUrl } from "#lib/wire/nats/servers";

/** What every job's run is told. */
const ownFlags = ["--resume_from_checkpoint=auto", "--user_signal=save", "--json-logs"] as const;

/** Keys of flags, as files have them. */
export const keysOf = (flags: readonly string[]): ReadonlySet<string> =>
  new Set(flags.flatMap((flag) => /^--([\w-]+)/.exec(flag)?.[1]?.replaceAll("-", "_") ?? []));

/**
 * Flags of a job's run beside its own: what happens in it can be watched where it is queued, unless the job says where.
 *
 * @param settings of the server where the queue is; undefined: it is a directory
 * @param given flags for all runs of the agent
 */
export const flagsOf =
  (settings: NatsSettings | undefined, given: readonly string[]) =>
  (job: Job): readonly string[] => [
    ...ownFlags,
    ...(settings === undefined || showsSecret(settings, given) || saysWhere(job, given)
      ? []
      : serverFlags(settings)),
    ...given,
  ];

/**
 * Whether the runs would have to show their credentials in clear text beyond this machine, which is the agent's to be
 * allowed, but not theirs: with `insecure: true` a run also listens for anybody.
 */
export function showsSecret(settings: NatsSettings, given: readonly string[]): boolean {
  const { isTls, remote } = parseNatsUrl(settings.url);
  const hasSecret = settings.credentialsFile !== null || settings.tokenFile !== null;
  return hasSecret && !isTls && remote.length > 0 && !keysOf(given).has("insecure");
}

function saysWhere({ config, flags }: Job, given: readonly string[]): boolean {
  if (keysOf([...flags, ...given]).has("nats_url")) return true;
  try {
    return parseConfigText(config, "job.yaml").has("nats_url");
  } catch {
    // The run refuses it by name.
    return true;
  }
}

/** Settings of a server as keys of a run's configuration. */
function serverFlags(settings: NatsSettings): readonly string[] {
  const files = [
    ["nats_credentials_file", settings.credentialsFile],
    ["nats_token_file", settings.tokenFile],
    ["nats_tls_ca_file", settings.tlsCaFile],
    ["nats_tls_cert_file", settings.tlsCertFile],
    ["nats_tls_key_file", settings.tlsKeyFile],
  ] as const;
  return [
    `--nats_url=${settings.url}`,
    // A run has another working directory.
    ...files.flatMap(([key, file]) => (file === null ? [] : [`--${key}=${resolve(file)}`])),
  ];
}
