import { z } from "zod";

const count = z.int().min(1);
const port = z.int().min(0).max(65_535);
const text = z.string().min(1);
const address = z.string().regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):[1-9]\d{0,4}$/, "must be HOST:PORT");

/** Who computes, how they find each other, and when one counts as gone. */
export const cluster = {
  workers: z.int().min(1).max(4096).default(1).describe("planned workers"),
  min_workers: z
    .int()
    .min(1)
    .max(4096)
    .default(1)
    .describe(
      "below these nothing new begins, and the run says that it waits; a step that is begun is finished by those that are here",
    ),
  max_workers: z
    .int()
    .min(1)
    .max(4096)
    .nullable()
    .default(null)
    .describe(
      "a worker beyond these is told to wait, and takes the place of one that leaves, or asks for no work in three times lease_timeout_ms",
    ),
  global_batch_size: count
    .nullable()
    .default(null)
    .describe("rows in a step; null: micro-batch x accumulation x workers"),
  gradient_groups: count
    .nullable()
    .default(null)
    .describe("parts of a step that are leased and summed in fixed order; null: workers"),
  threads_per_worker: z
    .int()
    .min(1)
    .max(1024)
    .nullable()
    .default(null)
    .describe(
      "part of what decides the bits; null: the cores that may be used (affinity, container quota) / workers",
    ),
  reducer_shards: z
    .int()
    .min(1)
    .max(64)
    .default(2)
    .describe("threads of the coordinator that keep weights and optimizer state, a part each"),
  reducers: z
    .union([z.array(address).min(1).max(4096), address.transform((one) => Object.freeze([one]))])
    .nullable()
    .default(null)
    .describe(
      "HOST:PORT of each `lockstep reducer`: processes, here or elsewhere, that do so in place of threads; null: threads",
    ),
  reducer_processes: z
    .int()
    .min(0)
    .max(64)
    .default(0)
    .describe("reducers that lockstep train starts on this machine; 0: threads"),
  reducer_timeout_ms: z
    .int()
    .min(1_000)
    .max(86_400_000)
    .default(60_000)
    .describe("a reducer that does not answer for so long is lost with what it kept"),
  reducer_replicas: z
    .int()
    .min(1)
    .max(2)
    .default(1)
    .describe(
      "processes that keep each shard; with 2 the first half of the reducers have the shards, and the second half, in the same order, their mirrors, which take over where one is lost",
    ),
  reducer_compare_steps: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(100)
    .describe(
      "with reducer_replicas: 2, updates between two comparisons of all that both copies of a shard keep, beside those before each save; 0: only these",
    ),
  wire_dtype: z
    .enum(["bfloat16", "float16", "float32"])
    .nullable()
    .default(null)
    .describe(
      "type in which matrices travel; null: that of products (bf16, fp16), else float32; adapters float32",
    ),
  standby: z
    .boolean()
    .default(false)
    .describe(
      "lockstep coordinator waits while another one of the same output_dir lives, and goes on with the run within 10 s of its end or silence; resume_from_checkpoint: null then means auto",
    ),
  listen: text.default("127.0.0.1:0").describe("HOST:PORT of the coordinator; port 0 is any"),
  advertise_host: text
    .nullable()
    .default(null)
    .describe(
      "name or address at which workers call the coordinator and its shards; null: that of listen, or where that is 0.0.0.0 or [::], the one at which a worker called the coordinator",
    ),
  metrics_host: text.default("127.0.0.1"),
  metrics_port: port
    .nullable()
    .default(0)
    .describe("metrics and dashboard; 0: any free port, null: off"),
  insecure: z
    .boolean()
    .default(false)
    .describe("allow other hosts without TLS and a token, and tokens in clear text"),
  tls_cert_file: text.nullable().default(null),
  tls_key_file: text.nullable().default(null),
  tls_ca_file: text.nullable().default(null),
  join_token_file: text.nullable().default(null).describe("secret that workers must show"),
  http_token_file: text.nullable().default(null).describe("secret for metrics and dashboard"),
  http_tls_cert_file: text
    .nullable()
    .default(null)
    .describe("certificate of metrics and dashboard; read again when it changes, as all of TLS"),
  http_tls_key_file: text.nullable().default(null),
  http_without_tls: z
    .boolean()
    .default(false)
    .describe("metrics and dashboard on other hosts without TLS, which something in front has"),
  heartbeat_interval_ms: z.int().min(50).max(60_000).default(1_000),
  heartbeat_timeout_ms: z.int().min(100).max(600_000).default(15_000),
  lease_timeout_ms: z
    .int()
    .min(1_000)
    .max(86_400_000)
    .default(600_000)
    .describe("a group that takes longer is leased once more"),
  verify_groups: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe(
      "share of the groups and of the evaluations' batches that a second worker computes too, before they count; at 1 one worker that computes wrongly changes nothing, at 0 it can",
    ),
  fingerprint_steps: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(20)
    .describe(
      "each step whose number is a multiple of it, workers compare the weights that they hold with those that they were sent, before they send a group; at 1 no flipped bit in a weight passes, 0: never",
    ),
  max_worker_restarts: z
    .int()
    .min(0)
    .max(1_000)
    .default(3)
    .describe("of a worker of lockstep train, without a finished group in between"),
  max_rollbacks: z
    .int()
    .min(0)
    .max(100)
    .default(3)
    .describe(
      "how often in a row, without a new checkpoint in between, a run whose reducer shard is lost goes back to its last checkpoint by itself, or where there is none to its beginning",
    ),
  user_signal: z
    .enum(["save", "stop"])
    .default("save")
    .describe(
      "what SIGUSR1 and SIGUSR2 do, as Slurm's --signal sends them: save after this step and go on, or stop",
    ),
  deterministic: z
    .boolean()
    .default(true)
    .describe("refuse workers whose kind of device would change the bits"),
  engine_module: text
    .nullable()
    .default(null)
    .describe("module whose default export creates the training engine; null: TensorFlow"),
};
