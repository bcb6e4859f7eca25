import { expandHome } from "#lib/core/home-path";
import { NatsLink, type NatsSettings } from "#lib/wire/nats/connection";

/** Options that lead to a NATS server, as the keys of a configuration do. */
export const natsOptions = {
  "nats-url": { type: "string" },
  "nats-credentials-file": { type: "string" },
  "nats-token-file": { type: "string" },
  "nats-tls-ca-file": { type: "string" },
  "nats-tls-cert-file": { type: "string" },
  "nats-tls-key-file": { type: "string" },
  insecure: { type: "boolean", default: false },
} as const;

type NatsValues = { readonly [Name in keyof typeof natsOptions]?: string | boolean | undefined };

/** Where the options are not given: the address, and a file of credentials. */
const urlVariable = "NATS_URL";
const credentialsVariable = "NATS_CREDS";

/** @throws E_USAGE where nothing names a server */
export function natsSettingsOf(
  values: NatsValues,
  usage: (problem: string) => never,
): NatsSettings {
  const file = (name: keyof NatsValues): string | null => {
    const value = values[name];
    return typeof value === "string" ? expandHome(value) : null;
  };
  const url = values["nats-url"] ?? process.env[urlVariable];
  if (typeof url !== "string") {
    return usage(`--nats-url is missing, and ${urlVariable} is not set`);
  }
  const tokenFile = file("nats-token-file");
  const given = process.env[credentialsVariable];
  const fromEnvironment = tokenFile === null && given !== undefined ? expandHome(given) : null;
  return {
    url,
    credentialsFile: file("nats-credentials-file") ?? fromEnvironment,
    tokenFile,
    tlsCaFile: file("nats-tls-ca-file"),
    tlsCertFile: file("nats-tls-cert-file"),
    tlsKeyFile: file("nats-tls-key-file"),
    insecure: values.insecure === true,
  };
}

/** A connection of a command that watches. */
export const openWatcherLink = (
  settings: NatsSettings,
  command: string,
  onNews: (line: string) => void,
): Promise<NatsLink> =>
  NatsLink.open(settings, { role: "watcher", name: `lockstep ${command}`, onNews });
