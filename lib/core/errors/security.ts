import { hostPort } from "#lib/core/address";
import { entry } from "./define.js";

/** What must not go over a network, and secrets that are none. */
export const securityErrors = {
  E_INSECURE_BIND: entry<{ host: string; missing: string }>(
    (d) => `Listening on ${d.host}, which other machines can reach, needs ${d.missing}.`,
    "Set tls_ca_file, tls_cert_file, tls_key_file and join_token_file, listen on 127.0.0.1, or accept the risk with --insecure.",
  ),
  E_INSECURE_CONNECT: entry<{ address: string }>(
    (d) =>
      `The join token would go to ${d.address} in clear text: the connection has no TLS, and the address is not this machine's loopback.`,
    "Give the worker --tls-ca-file, --tls-cert-file and --tls-key-file, name the coordinator by 127.0.0.1 or localhost where it runs on this machine (advertise_host too), or accept the risk with --insecure.",
  ),
  E_INSECURE_HTTP: entry<{ host: string; port: number; what: string; missing: string }>(
    (d) =>
      `The ${d.what} on ${hostPort(d.host, d.port)}, which other machines can reach, needs ${d.missing}.`,
    "A token is no secret where it travels in clear text. Set http_tls_cert_file, http_tls_key_file and http_token_file (flags of a worker: --http-tls-cert-file ...), or metrics_host: 127.0.0.1; http_without_tls: true where something in front has TLS; or accept the risk with insecure: true.",
  ),
  E_TOKEN_INVALID: entry<{ file: string; what: string; problem: string }>(
    (d) => `The ${d.what} in ${d.file} is not acceptable: ${d.problem}.`,
    "Write one line of printable ASCII into the file, for example with `openssl rand -hex 32`.",
  ),
  E_TLS_FILES: entry<{ files: string; problem: string }>(
    (d) => `The TLS files ${d.files} cannot be used: ${d.problem}.`,
    "Name PEM files that belong together: a certificate with its chain, its private key and, for mutual TLS, the authority of the other side.",
  ),
  E_CERTIFICATE_MISMATCH: entry<{ worker: string; expected: string; got: string }>(
    (d) =>
      `A call of worker ${d.worker} came with the certificate of ${d.got}; it registered with that of ${d.expected}.`,
    "Give each worker its own certificate, or all of them the same; a worker whose certificate has a new name is started anew.",
  ),
};
