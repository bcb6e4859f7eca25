import { expandHome } from "#lib/core/home-path";

/** Options of the processes that take part in a run: what protects their calls, and where their metrics are. */
export const memberOptions = {
  "metrics-host": { type: "string", default: "127.0.0.1" },
  "metrics-port": { type: "string", default: "0" },
  "join-token-file": { type: "string" },
  "tls-ca-file": { type: "string" },
  "tls-cert-file": { type: "string" },
  "tls-key-file": { type: "string" },
  "http-token-file": { type: "string" },
  "http-tls-cert-file": { type: "string" },
  "http-tls-key-file": { type: "string" },
  "http-without-tls": { type: "boolean", default: false },
  insecure: { type: "boolean", default: false },
} as const;

type OptionName = keyof typeof memberOptions;

type Flag = "http-without-tls" | "insecure";
type OfDefault = "metrics-host" | "metrics-port";
type MemberValues = Readonly<Record<OfDefault, string> & Record<Flag, boolean>> & {
  readonly [Name in Exclude<OptionName, Flag | OfDefault>]?: string;
};

const ofHttp = [
  ...(["http-token-file", "http-tls-cert-file", "http-tls-key-file"] as const),
  ...(["http-without-tls", "metrics-host"] as const),
] as const;
const unset: Partial<Record<OptionName, unknown>> = {
  "http-without-tls": memberOptions["http-without-tls"].default,
  "metrics-host": memberOptions["metrics-host"].default,
};

/** What the options say. @param port reads a port's number */
export function memberSettings(
  values: MemberValues,
  port: (name: OptionName, text: string) => number,
) {
  const metricsPort = values["metrics-port"];
  return {
    metricsHost: values["metrics-host"],
    metricsPort: metricsPort === "null" ? null : port("metrics-port", metricsPort),
    httpFiles: {
      tokenFile: pathOf(values["http-token-file"]) ?? null,
      tlsCertFile: pathOf(values["http-tls-cert-file"]) ?? null,
      tlsKeyFile: pathOf(values["http-tls-key-file"]) ?? null,
    },
    httpWithoutTls: values["http-without-tls"],
    security: {
      joinTokenFile: pathOf(values["join-token-file"]),
      tlsCaFile: pathOf(values["tls-ca-file"]),
      tlsCertFile: pathOf(values["tls-cert-file"]),
      tlsKeyFile: pathOf(values["tls-key-file"]),
      insecure: values.insecure,
    },
    /** A line for each option that is about metrics which there are none of. */
    withoutEffect:
      metricsPort === "null"
        ? ofHttp
            .filter((name) => values[name] !== undefined && values[name] !== unset[name])
            .map((name) => `--${name} has no effect: --metrics-port is null`)
        : [],
  };
}

/** A path that a person gave. */
export const pathOf = (given: string | undefined): string | undefined =>
  given === undefined ? undefined : expandHome(given);
