import type { ShardHandle } from "#coordinator/shards";
import { type MemberPass, memberTag } from "#lib/wire/member";

/** The run that tests of a part alone are in. */
export const testLife = { runId: "test-run", epoch: 1 };

export const passOf = (workerId = "worker"): MemberPass => ({
  ...testLife,
  workerId,
  secret: `secret of ${workerId}`,
});

export const tagOf = (workerId = "worker"): bigint => memberTag(passOf(workerId));

type Fenced = Pick<ShardHandle, "changeFence">;

export const admitTo = async (shard: Fenced, workerId = "worker"): Promise<void> =>
  shard.changeFence({ kind: "admit", workerId, secret: passOf(workerId).secret });

/** Makes a worker a member of a shard, and gives it a lease. */
export async function grantOn(
  shard: Fenced,
  lease: {
    readonly id: number;
    readonly step: number;
    readonly group: number;
    readonly workerId?: string;
    readonly isVerified?: boolean;
  },
): Promise<void> {
  const { workerId = "worker", isVerified = false, id, step, group } = lease;
  await admitTo(shard, workerId);
  await shard.changeFence({ kind: "grant", lease: { id, step, group, workerId, isVerified } });
}
