import { LockstepError } from "#lib/core/errors/index";
import { type FenceChange, type GrantedLease, isPeerName } from "#lib/wire/reducer-messages";
import { assertSameCertificate, isSameSecret, type MemberPass } from "#lib/wire/member";

/** Which run this is, and in which life of its coordinator. */
export interface RunLife {
  readonly runId: string;
  readonly epoch: number;
}

const describeLife = ({ runId, epoch }: RunLife): string =>
  runId === "" ? "no run" : `run ${runId}, epoch ${epoch}`;

/** @throws E_STALE_RUN for a call of another run, or of another life of this one's coordinator */
export function assertSameLife(life: RunLife, pass: MemberPass): void {
  if (pass.runId === life.runId && pass.epoch === life.epoch) return;
  throw new LockstepError("E_STALE_RUN", {
    worker: pass.workerId,
    expected: describeLife(life),
    got: describeLife(pass),
  });
}

/** Who is a member and holds which leases, told by the coordinator before any byte of it comes. */
export class Fence {
  #life: RunLife;
  /** What calls of a worker show, by its id. */
  readonly #members = new Map<string, Pick<MemberPass, "secret" | "certificate">>();
  /** Of the step in progress. */
  readonly #leases = new Map<number, GrantedLease>();

  constructor(life: RunLife) {
    this.#life = life;
  }

  /**
   * A coordinator's call: one of a later epoch takes over, and those of the one before are members no more.
   *
   * @returns the leases that are nobody's from now on
   * @throws E_STALE_COORDINATOR for one of an earlier epoch, or of another run
   */
  open(life: RunLife): readonly number[] {
    this.assertCurrent(life);
    if (life.epoch === this.#life.epoch) return [];
    this.#life = life;
    this.#members.clear();
    return this.#forget([...this.#leases.keys()]);
  }

  /** @throws E_STALE_COORDINATOR for a life before this one's, or of another run */
  assertCurrent(life: RunLife): void {
    if (life.runId === this.#life.runId && life.epoch >= this.#life.epoch) return;
    throw new LockstepError("E_STALE_COORDINATOR", {
      expected: describeLife(this.#life),
      got: describeLife(life),
    });
  }

  /** @returns the leases that are nobody's from now on */
  change(change: FenceChange): readonly number[] {
    switch (change.kind) {
      case "admit":
        this.#members.set(change.workerId, change);
        return [];
      case "expel":
        this.#members.delete(change.workerId);
        return this.#forget(
          [...this.#leases.values()]
            .filter(({ workerId }) => workerId === change.workerId)
            .map(({ id }) => id),
        );
      case "grant":
        this.#leases.set(change.lease.id, change.lease);
        return [];
      case "revoke":
        return this.#forget(change.leases);
    }
  }

  #forget(leases: readonly number[]): readonly number[] {
    for (const id of leases) this.#leases.delete(id);
    return leases;
  }

  /** The leases of the step before are over. */
  forgetLeases(): void {
    this.#leases.clear();
  }

  /** @throws E_STALE_RUN, E_UNKNOWN_WORKER, E_CERTIFICATE_MISMATCH */
  assertMember(pass: MemberPass): void {
    assertSameLife(this.#life, pass);
    const member = this.#members.get(pass.workerId);
    if (member === undefined || !isSameSecret(member.secret, pass.secret)) {
      throw new LockstepError("E_UNKNOWN_WORKER", { worker: pass.workerId });
    }
    // A shard of the same range shows what the coordinator told it alone, whatever its certificate names.
    if (!isPeerName(pass.workerId)) assertSameCertificate(member.certificate, pass);
  }

  /** The lease under which a member sends. @throws E_LEASE_NOT_HELD; E_STALE_RUN, E_UNKNOWN_WORKER */
  heldLease(
    pass: MemberPass,
    sent: { readonly lease: number; readonly step: number; readonly group: number },
  ): GrantedLease {
    this.assertMember(pass);
    const lease = this.#leases.get(sent.lease);
    const isHeld =
      lease?.workerId === pass.workerId && lease.step === sent.step && lease.group === sent.group;
    if (isHeld) return lease;
    const { step, group } = sent;
    throw new LockstepError("E_LEASE_NOT_HELD", {
      ...{ worker: pass.workerId, lease: sent.lease, step, group },
      holder:
        lease === undefined ? "" : `${lease.workerId}, step ${lease.step}, group ${lease.group}`,
    });
  }
}
