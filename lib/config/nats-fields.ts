import { z } from "zod";

const file = z.string().min(1).nullable().default(null);

/** A NATS server, to which a run's events go and from which it takes commands. */
export const nats = {
  nats_url: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      "servers to which the run's events go: nats://HOST:PORT or tls://HOST:PORT, several of a cluster separated by commas; null: none",
    ),
  nats_credentials_file: file.describe("a .creds file, the seed of an nkey user, or USER:PASSWORD"),
  nats_token_file: file.describe("secret that the server asks for, in place of credentials"),
  nats_tls_ca_file: file.describe("authority of the server's certificate, with tls:// in nats_url"),
  nats_tls_cert_file: file.describe("certificate of this client, where the server asks for one"),
  nats_tls_key_file: file,
  nats_lease: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, { message: "1 to 64 letters, digits, - or _" })
    .nullable()
    .default(null)
    .describe(
      "name of the lease in NATS by which coordinators of one run decide who leads, the same for all of them; null: files of output_dir decide",
    ),
  nats_events_max_age_days: z
    .number()
    .positive()
    .max(3_650)
    .nullable()
    .default(null)
    .describe(
      "how long the stream keeps events of all runs; null: as it is, 30 where this run makes it",
    ),
  nats_events_max_gb: z
    .number()
    .positive()
    .max(1_000_000)
    .nullable()
    .default(null)
    .describe(
      "beyond it the stream drops the oldest events of all runs; null: as it is, without a limit where this run makes it",
    ),
};
