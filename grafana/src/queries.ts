/** The dashboard's content: what each panel asks Prometheus, apart from how Grafana draws it. */
export interface PanelSpec {
  readonly title: string;
  readonly description: string;
  /** Grafana's name of the unit of every query. */
  readonly unit: string;
  readonly kind: "stat" | "lines" | "stacked";
  readonly queries: readonly QuerySpec[];
  /** Fixed lower and upper end of the axis. */
  readonly min?: number;
  readonly max?: number;
  /** Columns of Grafana's 24. */
  readonly width: number;
}

interface QuerySpec {
  readonly expr: string;
  /** Grafana's template: `{{label}}`. */
  readonly legend: string;
}

interface RowSpec {
  readonly title: string;
  readonly panels: readonly PanelSpec[];
}

const selector = 'job=~"$job", instance=~"$instance"';

/** The metric `lockstep_<name>` of the chosen targets, with further label matchers. */
const metric = (name: string, matchers = ""): string =>
  `lockstep_${name}{${selector}${matchers === "" ? "" : `, ${matchers}`}}`;

const rate = (name: string): string => `rate(${metric(name)}[$__rate_interval])`;

// A device is reported by its worker and, from the worker's heartbeats, by the coordinator: the
// same labels twice when both are scraped. `max by` counts it once.
const onceADevice = (expr: string): string => `max by (worker, device_type) (${expr})`;

const quantiles = (name: string, by = ""): readonly QuerySpec[] =>
  [0.5, 0.9, 0.99].map((quantile) => ({
    expr: `histogram_quantile(${quantile}, sum by (le${by === "" ? "" : `, ${by}`}) (${rate(`${name}_bucket`)}))`,
    legend: `${by === "" ? "" : `{{${by}}} `}p${quantile * 100}`,
  }));

const one = (expr: string, legend: string): readonly QuerySpec[] => [{ expr, legend }];

export const rows: readonly RowSpec[] = [
  {
    title: "Run",
    panels: [
      {
        title: "Steps",
        description: "Optimizer updates made since the coordinator started.",
        unit: "short",
        kind: "stat",
        width: 4,
        queries: one(metric("training_steps_total"), "steps"),
      },
      {
        title: "Epoch",
        description: "Passes over the training data, fractional.",
        unit: "short",
        kind: "stat",
        width: 4,
        queries: one(metric("training_epoch"), "epoch"),
      },
      {
        title: "Training loss",
        description: "Of the last step, nats per supervised token.",
        unit: "short",
        kind: "stat",
        width: 4,
        queries: one(metric("training_loss"), "loss"),
      },
      {
        title: "Validation perplexity",
        description: "Of the last evaluation: exp of its loss.",
        unit: "short",
        kind: "stat",
        width: 4,
        queries: one(metric("evaluation_perplexity"), "perplexity"),
      },
      {
        title: "Device hours",
        description: "Hours for which workers have held devices: GPU-hours, and CPU-hours apart.",
        unit: "h",
        kind: "stat",
        width: 4,
        queries: one(
          `sum by (device_type) (${metric("workers_device_seconds_total")}) / 3600`,
          "{{device_type}}",
        ),
      },
      {
        title: "Version",
        description: "Of the coordinator.",
        unit: "short",
        kind: "stat",
        width: 4,
        queries: one(metric("build_info"), "{{version}}"),
      },
    ],
  },
  {
    title: "Learning",
    panels: [
      {
        title: "Loss",
        description: "Mean negative log-likelihood per supervised token, nats.",
        unit: "short",
        kind: "lines",
        width: 12,
        queries: [
          { expr: metric("training_loss"), legend: "training" },
          { expr: metric("evaluation_loss"), legend: "validation" },
          { expr: metric("evaluation_loss_gap"), legend: "gap" },
        ],
      },
      {
        title: "Gradient norm",
        description: "L2 norm of the global batch's gradient, before clipping.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: one(metric("training_gradient_norm"), "norm"),
      },
      {
        title: "Learning rate",
        description: "Used by the last step.",
        unit: "sci",
        kind: "lines",
        width: 6,
        min: 0,
        queries: one(metric("training_learning_rate"), "learning rate"),
      },
      {
        title: "Loss scale",
        description: "What backward's loss is multiplied by in fp16: 1 in other precisions.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(metric("training_loss_scale"), "scale"),
      },
      {
        title: "Skipped steps",
        description: "Steps without an update, because their gradient was not finite.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(metric("training_skipped_steps_total"), "skipped"),
      },
      {
        title: "Losses of tasks",
        description: "Of each task in the latest step with rows of it, before its weight.",
        unit: "short",
        kind: "lines",
        width: 12,
        queries: one(metric("task_loss"), "{{task}}"),
      },
      {
        title: "Weights of tasks",
        description: "What each task's loss is multiplied by.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(metric("task_weight"), "{{task}}"),
      },
      {
        title: "General loss",
        description:
          "Of general rows that are not learnt, nats per token; 0 without general_dataset.",
        unit: "short",
        kind: "lines",
        width: 6,
        queries: one(metric("general_loss"), "general"),
      },
      {
        title: "Forgotten",
        description: "What the general loss rose by since before the first step, nats per token.",
        unit: "short",
        kind: "lines",
        width: 6,
        queries: one(metric("forgotten_loss"), "forgotten"),
      },
      {
        title: "EWC penalty",
        description: "Of the weights before the last step, beside its loss; 0 without EWC.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: one(metric("training_ewc_penalty"), "penalty"),
      },
      {
        title: "EWC penalty over the loss",
        description: "How much EWC holds against what the data ask for.",
        unit: "percentunit",
        kind: "lines",
        width: 6,
        min: 0,
        queries: one(metric("training_ewc_penalty_ratio"), "share"),
      },
    ],
  },
  {
    title: "Throughput",
    panels: [
      {
        title: "Tokens per second",
        description: "Of the last step, and the mean over the interval with evaluation and saving.",
        unit: "short",
        kind: "lines",
        width: 8,
        min: 0,
        queries: [
          { expr: metric("training_tokens_per_second"), legend: "last step" },
          { expr: rate("training_tokens_total"), legend: "mean" },
        ],
      },
      {
        title: "Samples per second",
        description: "Packed blocks trained on.",
        unit: "short",
        kind: "lines",
        width: 8,
        min: 0,
        queries: [
          { expr: metric("training_samples_per_second"), legend: "last step" },
          { expr: rate("training_samples_total"), legend: "mean" },
        ],
      },
      {
        title: "Tokens per second, by worker",
        description: "Counted by each worker; a straggler is below the others.",
        unit: "short",
        kind: "stacked",
        width: 8,
        min: 0,
        queries: one(`sum by (instance) (${rate("worker_tokens_total")})`, "{{instance}}"),
      },
      {
        title: "Step time",
        description: "From the first lease of a step to the next version of the parameters.",
        unit: "s",
        kind: "lines",
        width: 8,
        min: 0,
        queries: quantiles("step_duration_seconds"),
      },
      {
        title: "Synchronisation time",
        description: "From the last group's arrival to the publication of the next version.",
        unit: "s",
        kind: "lines",
        width: 8,
        min: 0,
        queries: quantiles("sync_duration_seconds"),
      },
      {
        title: "Share of time in synchronisation",
        description: "Seconds of synchronisation per second of steps.",
        unit: "percentunit",
        kind: "lines",
        width: 8,
        min: 0,
        max: 1,
        queries: one(
          `sum(${rate("sync_duration_seconds_sum")}) / sum(${rate("step_duration_seconds_sum")})`,
          "share",
        ),
      },
    ],
  },
  {
    title: "Network",
    panels: [
      {
        title: "Calls per second (QPS)",
        description: "gRPC calls handled by the coordinator and its reducer shards.",
        unit: "reqps",
        kind: "stacked",
        width: 12,
        min: 0,
        queries: one(
          `sum by (method, code) (${rate("rpc_requests_total")})`,
          "{{method}} {{code}}",
        ),
      },
      {
        title: "Call latency",
        description: "By method; the long poll for the next task waits on purpose.",
        unit: "s",
        kind: "lines",
        width: 12,
        min: 0,
        queries: quantiles("rpc_duration_seconds", "method"),
      },
      {
        title: "Gradients received",
        description: "Bytes per second, by reducer shard.",
        unit: "Bps",
        kind: "stacked",
        width: 12,
        min: 0,
        queries: one(`sum by (shard) (${rate("reducer_received_bytes_total")})`, "shard {{shard}}"),
      },
      {
        title: "Parameters sent",
        description: "Bytes per second, by reducer shard.",
        unit: "Bps",
        kind: "stacked",
        width: 12,
        min: 0,
        queries: one(`sum by (shard) (${rate("reducer_sent_bytes_total")})`, "shard {{shard}}"),
      },
      {
        title: "Gradients that wait",
        description: "Pushes that a reducer shard cannot take yet: groups before theirs are late.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(`sum by (shard) (${metric("reducer_waiting_pushes")})`, "shard {{shard}}"),
      },
      {
        title: "Connections refused",
        description: "A second, by reason: of strangers, mostly.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(`sum by (reason) (${rate("refused_connections_total")})`, "{{reason}}"),
      },
      {
        title: "Events of the run stored by NATS",
        description:
          "A second, and those that were dropped because too many waited; 0 without NATS.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: [
          ...one(`sum(${rate("events_published_total")})`, "stored"),
          ...one(`sum(${rate("events_dropped_total")})`, "dropped"),
        ],
      },
      {
        title: "Events that wait for NATS",
        description: "They are dropped beyond 20,000; 0 without NATS.",
        unit: "short",
        kind: "lines",
        width: 12,
        min: 0,
        queries: one(`sum(${metric("events_waiting")})`, "waiting"),
      },
    ],
  },
  {
    title: "Devices",
    panels: [
      {
        title: "Utilisation",
        description: "Busy share of each worker's GPU, or of its CPU threads.",
        unit: "percentunit",
        kind: "lines",
        width: 8,
        min: 0,
        max: 1,
        queries: one(onceADevice(metric("device_utilization_ratio")), "{{worker}} {{device_type}}"),
      },
      {
        title: "Memory used",
        description: "Of each worker's device.",
        unit: "bytes",
        kind: "lines",
        width: 8,
        min: 0,
        queries: one(onceADevice(metric("device_memory_used_bytes")), "{{worker}} {{device_type}}"),
      },
      {
        title: "Memory used, share",
        description: "Of what the device has.",
        unit: "percentunit",
        kind: "lines",
        width: 8,
        min: 0,
        max: 1,
        queries: one(
          `${onceADevice(metric("device_memory_used_bytes"))} / ${onceADevice(metric("device_memory_total_bytes"))}`,
          "{{worker}} {{device_type}}",
        ),
      },
      {
        title: "Devices held",
        description: "Device seconds per second: how many devices are charged right now.",
        unit: "short",
        kind: "stacked",
        width: 8,
        min: 0,
        queries: one(
          `sum by (device_type) (${rate("workers_device_seconds_total")})`,
          "{{device_type}}",
        ),
      },
      {
        title: "Workers by state",
        description: "As the coordinator sees them.",
        unit: "short",
        kind: "stacked",
        width: 8,
        min: 0,
        queries: one(`sum by (state) (${metric("workers")})`, "{{state}}"),
      },
      {
        title: "Share of time in compute",
        description: "Of each worker: the rest is loading, sending and waiting.",
        unit: "percentunit",
        kind: "lines",
        width: 8,
        min: 0,
        max: 1,
        queries: one(`sum by (instance) (${rate("worker_compute_seconds_total")})`, "{{instance}}"),
      },
    ],
  },
  {
    title: "Faults and saving",
    panels: [
      {
        title: "Worker failures",
        description:
          "Workers that died or fell silent, and those whose weights changed in memory, per interval.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(`increase(${metric("worker_failures_total")}[$__rate_interval])`, "failures"),
          ...one(
            `increase(${metric("workers_corrupted_total")}[$__rate_interval])`,
            "changed weights",
          ),
        ],
      },
      {
        title: "Gradient groups leased again",
        description:
          "After a failure, a missed deadline or a bad checksum; and a second time, beside a slow worker; per interval. And how many workers are slow.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(
            `increase(${metric("gradient_groups_requeued_total")}[$__rate_interval])`,
            "groups",
          ),
          ...one(
            `increase(${metric("gradient_groups_duplicated_total")}[$__rate_interval])`,
            "beside a slow worker",
          ),
          ...one(metric("slow_workers"), "slow workers"),
        ],
      },
      {
        title: "Checkpoints",
        description:
          "Written since the coordinator started, and attempts that the file system refused.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(metric("checkpoints_total"), "checkpoints"),
          ...one(metric("checkpoint_failures_total"), "refused"),
        ],
      },
      {
        title: "Time to save a checkpoint",
        description: "From its beginning to the renamed directory.",
        unit: "s",
        kind: "lines",
        width: 6,
        min: 0,
        queries: quantiles("checkpoint_duration_seconds"),
      },
      {
        title: "What saves cost",
        description:
          "Bytes a second that are saved, and the share of time for which training stood still for it.",
        unit: "short",
        kind: "lines",
        width: 24,
        min: 0,
        queries: [
          ...one(`rate(${metric("checkpoint_saved_bytes_total")}[$__rate_interval])`, "bytes/s"),
          ...one(
            `rate(${metric("checkpoint_wait_seconds_total")}[$__rate_interval])`,
            "share of time",
          ),
        ],
      },
    ],
  },
  {
    title: "Reducer shards",
    panels: [
      {
        title: "Lost shards",
        description:
          "Since the coordinator started: reducer shards whose mirror took over, and such as were lost with what they kept.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(metric("reducer_takeovers_total"), "taken over"),
          ...one(metric("reducer_shards_lost_total"), "lost"),
        ],
      },
      {
        title: "Shards and mirrors",
        description:
          "Reducer shards that are there, and those with a second copy that is up to date.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(metric("reducer_shards"), "shards"),
          ...one(metric("reducer_mirrors"), "mirrors"),
        ],
      },
      {
        title: "Work of mirrors",
        description:
          "Seconds per second: what is compared with mirrors, and what new ones copy, all shards together; and comparisons since the coordinator started.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(rate("reducer_mirror_comparison_seconds_total"), "comparing"),
          ...one(rate("reducer_mirror_copy_seconds_total"), "copying"),
          ...one(metric("reducer_mirror_comparisons_total"), "comparisons"),
        ],
      },
      {
        title: "Steps made again",
        description:
          "Since the coordinator started: all shards went back to what was saved, because one was lost.",
        unit: "short",
        kind: "lines",
        width: 6,
        min: 0,
        queries: [
          ...one(metric("training_repeated_steps_total"), "steps"),
          ...one(metric("training_rollbacks_total"), "rollbacks"),
        ],
      },
    ],
  },
];
