import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { LossSum, WorkerJob } from "#lib/core/job";
import { shardRanges, wireOffsetBytes, wireSizeBytes } from "#lib/core/parameter-layout";
import { BulkClient } from "#lib/wire/bulk-client";
import { ControlClient } from "#lib/wire/control-client";
import {
  protocolVersion,
  type RegisterReply,
  type RegisterRequest,
  type TrainTask,
} from "#lib/wire/control-messages";
import type { MemberPass } from "#lib/wire/member";
import type { WireSecurity } from "#lib/wire/security";
import { FakeEngine } from "./fake-engine.js";

/** What a worker of tests says of itself. */
export const testIdentity = (name = "ghost"): RegisterRequest => ({
  ...{ protocolVersion, name, host: "elsewhere", pid: 1, incarnation: randomUUID() },
  ...{ deviceKind: "fake", deviceType: "cpu", advisesBf16: true, bf16Slowdown: 0 },
  ...{ advisesFp16: false, fp16Slowdown: 0 },
});

/** Registers, as soon as it may, and shows that from then on. */
export async function registered(
  control: ControlClient,
  identity = testIdentity(),
): Promise<RegisterReply & { readonly pass: MemberPass }> {
  let reply = await control.register(identity);
  while (reply.retryAfterMs > 0) {
    await delay(reply.retryAfterMs);
    reply = await control.register(identity);
  }
  const { runId, epoch, workerId, memberSecret: secret } = reply;
  const pass = { runId, epoch, workerId, secret };
  control.usePass(pass);
  return { ...reply, pass };
}

/** A member that does what a test says, call by call; what it computes by itself is right. */
export class ScriptedMember {
  readonly control: ControlClient;
  readonly workerId: string;
  readonly pass: MemberPass;
  readonly shardAddresses: readonly string[];
  readonly #job: WorkerJob;
  readonly #security: WireSecurity;
  readonly #shards: readonly BulkClient[];
  readonly #ranges: readonly { readonly start: number; readonly end: number }[];

  private constructor(
    control: ControlClient,
    { jobJson, shardAddresses, workerId, pass }: Awaited<ReturnType<typeof registered>>,
    security: WireSecurity,
  ) {
    this.control = control;
    this.workerId = workerId;
    this.pass = pass;
    this.shardAddresses = shardAddresses;
    this.#security = security;
    this.#job = JSON.parse(jobJson) as WorkerJob;
    this.#shards = shardAddresses.map((address) => new BulkClient({ address, security, pass }));
    const { layout } = this.#job;
    this.#ranges = shardRanges(layout, shardAddresses.length).map(({ start, end }) => ({
      start: wireOffsetBytes(layout, start),
      end: wireOffsetBytes(layout, end),
    }));
  }

  static async join(
    address: string,
    identity = testIdentity(),
    security: WireSecurity = {},
  ): Promise<ScriptedMember> {
    const control = new ControlClient({ address, security });
    return new ScriptedMember(control, await registered(control, identity), security);
  }

  /** Waits for a group to do. */
  async lease(heldLeases: readonly number[] = []): Promise<TrainTask> {
    for (;;) {
      const { workerId } = this;
      const task = await this.control.nextTask({ workerId, maxWaitMs: 10_000, heldLeases });
      if (task.kind === "train") return task;
      if (task.kind !== "wait") throw new Error(`${task.kind} came where a group was expected`);
    }
  }

  /** What an honest worker sends and reports. */
  async compute(
    task: TrainTask,
  ): Promise<{ readonly gradient: Uint8Array; readonly sums: readonly LossSum[] }> {
    const engine = new FakeEngine(this.#job);
    const wire = new Uint8Array(wireSizeBytes(this.#job.layout));
    await this.#onAll(this.#shards, async (client, range) =>
      client.pullParameters({ version: task.version }, wire.subarray(range.start, range.end)),
    );
    engine.loadParameters(wire);
    const sums = task.batches.map((batch, i) =>
      engine.accumulate(
        batch,
        task.gradScales[i] as number,
        i === 0,
        i === task.batches.length - 1 ? wire : undefined,
      ),
    );
    return { gradient: wire, sums };
  }

  /** @returns what each shard did with it */
  async push(
    lease: Pick<TrainTask, "step" | "group" | "lease">,
    gradient: Uint8Array,
  ): Promise<readonly string[]> {
    return this.pushBy(this.#shards, lease, gradient);
  }

  /** Connections to the shards that say that they are another registration's. */
  shardsAs(pass: MemberPass): readonly BulkClient[] {
    const security = this.#security;
    return this.shardAddresses.map((address) => new BulkClient({ address, security, pass }));
  }

  /** @param clients to each shard one */
  async pushBy(
    clients: readonly BulkClient[],
    lease: Pick<TrainTask, "step" | "group" | "lease">,
    gradient: Uint8Array,
    more: { readonly signal?: AbortSignal; readonly onChunk?: () => Promise<void> } = {},
  ): Promise<readonly string[]> {
    const { step, group, lease: id } = lease;
    return this.#onAll(clients, async (client, range) => {
      const bytes = gradient.subarray(range.start, range.end);
      return (await client.pushGradients({ step, group, lease: id, ...more }, bytes)).outcome;
    });
  }

  async report(lease: number, sums: readonly LossSum[]): Promise<boolean> {
    const { workerId } = this;
    const result = { kind: "losses", sums } as const;
    return (await this.control.completeTask({ workerId, lease, result })).stale;
  }

  close(): void {
    for (const shard of this.#shards) shard.close();
    this.control.close();
  }

  async #onAll<T>(
    clients: readonly BulkClient[],
    call: (
      client: BulkClient,
      range: { readonly start: number; readonly end: number },
    ) => Promise<T>,
  ): Promise<readonly T[]> {
    const settled = await Promise.allSettled(
      clients.map(async (client, i) => {
        const range = this.#ranges[i];
        if (range === undefined) throw new RangeError(`there is no shard ${i}`);
        return call(client, range);
      }),
    );
    return settled.map((result) => {
      if (result.status === "rejected") throw result.reason;
      return result.value;
    });
  }
}
