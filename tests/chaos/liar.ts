import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "#lib/core/errors/index";
import { processorKind, readProcessor } from "#lib/core/processor";
import type { BulkClient } from "#lib/wire/bulk-client";
import type { RegisterRequest, TrainTask } from "#lib/wire/control-messages";
import type { MemberPass } from "#lib/wire/member";
import { installedEngine } from "#lib/graph/binding";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { ScriptedMember, testIdentity } from "#tests/support/scripted-member";
import { gradientGroups } from "./job.js";
import type { Lie } from "./schedule.js";

/** Every liar is known by it. */
export const liarName = (lie: Lie): string => `liar-${lie}`;
/** How often it lies before it leaves. */
const numLies = 3;
/** Between two attempts to join. */
const againMs = 200;
/** How long a push hangs in the middle. */
const silenceMs = 1_500;

/** A member that registers as any other, takes groups, and does not do what it says. */
export class Liar {
  readonly #address: string;
  readonly #lie: Lie;
  readonly #onLie: () => void;
  readonly #identity: RegisterRequest;
  #numLies = 0;
  #isClosed = false;
  #member: ScriptedMember | undefined;

  /** @param onLie told of each lie that was told */
  constructor(options: {
    readonly address: string;
    readonly lie: Lie;
    /** It says that it is of the honest workers' kind of device: with another one they would be kept out. */
    readonly isReal: boolean;
    readonly onLie: () => void;
  }) {
    this.#address = options.address;
    this.#lie = options.lie;
    this.#onLie = options.onLie;
    const processor = processorKind(readProcessor());
    const deviceKind = options.isReal ? `${processor}, ${installedEngine()}` : processor;
    this.#identity = { ...testIdentity(liarName(options.lie)), deviceKind };
  }

  /** Lies until it was often enough, nobody listens any more, or `close`. */
  async run(): Promise<void> {
    while (!this.#isClosed && this.#numLies < numLies) {
      try {
        const member = await ScriptedMember.join(this.#address, this.#identity);
        this.#member = member;
        while (!this.#isClosed && this.#numLies < numLies) await this.#tell(member);
        await member.control.leave({ workerId: member.workerId, reason: "it has lied enough" });
      } catch (error) {
        if (remoteErrorCode(error) === "E_WORKER_QUARANTINED") return;
        // Its coordinator is away, has found it out, or has other work than groups.
        await delay(againMs);
      } finally {
        this.#member?.close();
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#member?.close();
  }

  async #tell(member: ScriptedMember): Promise<void> {
    const task = await member.lease();
    const { gradient, sums } = await member.compute(task);
    const wrong = gradient.slice();
    for (let at = 0; at < wrong.length; at += 4) wrong[at] = (wrong[at] ?? 0) ^ 1;
    const told = (): void => {
      this.#numLies += 1;
      this.#onLie();
    };
    switch (this.#lie) {
      case "wrong-sums": {
        await member.push(task, wrong);
        told();
        await member.report(task.lease, sums);
        return;
      }
      case "not-a-number": {
        new Float32Array(wrong.buffer).fill(Number.NaN, 0, 8);
        await member.push(task, wrong);
        told();
        await member.report(task.lease, sums);
        return;
      }
      case "wrong-weight": {
        await member.push(task, gradient);
        told();
        const more = sums.map((sum) => ({ ...sum, weight: sum.weight + 1 }));
        await member.report(task.lease, more);
        return;
      }
      case "stale-lease": {
        // What it does not name when it asks is given back.
        await member.lease();
        told();
        await refusedAll([member.push(task, wrong)]);
        await member.report(task.lease, sums);
        return;
      }
      case "lease-of-another": {
        await refusedAll(othersOf(task).map(async (lease) => member.push(lease, wrong)));
        told();
        return;
      }
      case "foreign-job": {
        const passes: MemberPass[] = [
          { ...member.pass, runId: "another-run" },
          { ...member.pass, epoch: member.pass.epoch + 1 },
          { ...member.pass, secret: "0".repeat(32) },
        ];
        await refusedAll(
          passes.map(async (pass) => {
            const shards = member.shardsAs(pass);
            return member.pushBy(shards, task, wrong).finally(() => closeAll(shards));
          }),
        );
        told();
        return;
      }
      case "half-push": {
        const shards = member.shardsAs(member.pass);
        const end = new AbortController();
        const onChunk = async (): Promise<void> => delay(silenceMs);
        const ended = refusedAll([
          member.pushBy(shards, task, wrong, { signal: end.signal, onChunk }),
        ]).finally(() => closeAll(shards));
        await delay(silenceMs / 2);
        told();
        end.abort();
        await ended;
        return;
      }
      case "nothing-pushed": {
        told();
        await member.report(task.lease, sums);
        await delay(silenceMs);
        return;
      }
      case "failures": {
        const { workerId } = member;
        told();
        const fatal = this.#numLies === numLies;
        const failure = { code: "E_ENGINE_CRASHED", message: "it says", fatal };
        await member.control.reportFailure({ workerId, lease: task.lease, ...failure });
      }
    }
  }
}

/** Leases that other members may hold, of the same step. */
function othersOf({
  step,
  group,
  lease,
}: TrainTask): readonly Pick<TrainTask, "step" | "group" | "lease">[] {
  const near = [-3, -2, -1, 1, 2, 3].map((by) => lease + by);
  return Array.from({ length: gradientGroups }, (_, other) => other)
    .filter((other) => other !== group)
    .flatMap((other) => near.map((id) => ({ step, group: other, lease: id })));
}

/** What is refused for a reason of the catalogue is what was meant to happen. */
async function refusedAll(pushes: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(pushes)) {
    if (result.status === "rejected" && !(result.reason instanceof LockstepError)) {
      throw result.reason;
    }
  }
}

function closeAll(shards: readonly BulkClient[]): void {
  for (const shard of shards) shard.close();
}
