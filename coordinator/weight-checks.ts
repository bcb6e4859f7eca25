import { LockstepError } from "#lib/core/errors/index";
import type { Fingerprint } from "#lib/core/held-weights";
import type { CheckWeightsRequest } from "#lib/wire/control-messages";

/** What a worker's fingerprints say. */
export type WeightVerdict =
  | { readonly kind: "intact" }
  /** Its engine cannot tell. */
  | { readonly kind: "unknown" }
  | {
      readonly kind: "corrupted";
      readonly spaces: readonly Fingerprint["space"][];
      /** Of the worker's last check that found nothing; undefined: this is its first. */
      readonly intactVersion: number | undefined;
      /** How often this life of the worker's process was found out, this time included. */
      readonly numFound: number;
    };

/** Workers of now and of before that are remembered. */
const maxRemembered = 10_000;
/** Versions of which it is remembered what workers were sent: of the step in progress, and of stragglers. */
const maxVersions = 3;

/**
 * Compares what workers' engines hold with what they were sent, and what they were sent with one another: shards
 * serve everybody the same bytes, under checksums.
 */
export class WeightChecks {
  /** By worker: version of its last good check. */
  readonly #intact = new Map<string, number>();
  /** By incarnation. */
  readonly #found = new Map<string, number>();
  /** By space and version. */
  readonly #sent = new Map<string, SentWeights>();
  /** The same of whoever says otherwise. */
  readonly #disputed = new Map<string, SentWeights>();

  /** @throws E_WEIGHTS_DIVERGED where two workers were sent different weights, one of them twice */
  check(
    { workerId, lease, version, fingerprints }: CheckWeightsRequest,
    incarnation: string,
  ): WeightVerdict {
    if (fingerprints.length === 0) return { kind: "unknown" };
    const spaces = fingerprints
      .filter(
        ({ space, sent, held }) =>
          !this.#isAsSent(space, version, { digest: sent, workerId, lease }) || sent !== held,
      )
      .map(({ space }) => space);
    if (spaces.length === 0) {
      remember(this.#intact, workerId, version);
      return { kind: "intact" };
    }
    const numFound = (this.#found.get(incarnation) ?? 0) + 1;
    remember(this.#found, incarnation, numFound);
    return { kind: "corrupted", spaces, intactVersion: this.#intact.get(workerId), numFound };
  }

  /** Whether a worker was sent what others were; what it kept of that may have changed in its memory, too. */
  #isAsSent(space: Fingerprint["space"], version: number, told: SentWeights): boolean {
    // Frozen weights have one version.
    const key = space === "frozen" ? space : `${space} ${version}`;
    const known = this.#sent.get(key);
    if (known === undefined) {
      this.#sent.set(key, told);
      const [oldest] = [...this.#sent.keys()].filter((one) => one !== "frozen");
      if (this.#sent.size > maxVersions && oldest !== undefined) {
        this.#sent.delete(oldest);
        this.#disputed.delete(oldest);
      }
      return true;
    }
    if (known.digest === told.digest) return true;
    const before = this.#disputed.get(key);
    const isSame = before?.workerId === told.workerId && before.digest === told.digest;
    // It has loaded them anew since, and they came the same again.
    if (isSame && before.lease !== told.lease) {
      const workers = `${known.workerId} and ${told.workerId}`;
      throw new LockstepError("E_WEIGHTS_DIVERGED", { workers, space, version });
    }
    this.#disputed.set(key, told);
    return false;
  }
}

interface SentWeights {
  readonly digest: string;
  readonly workerId: string;
  /** Of the group that it computed with them. */
  readonly lease: number;
}

function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > maxRemembered && oldest !== undefined) map.delete(oldest);
}
