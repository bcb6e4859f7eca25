import { LockstepError } from "#lib/core/errors/index";

/** One version of the parameters of a shard's range, in wire form. */
interface PublishedVersion {
  readonly version: number;
  /** Lies in memory that a later version will use: valid while `assertHeld` does not throw. */
  readonly bytes: Uint8Array;
}

/** The versions that workers may pull: the newest and the one before it. */
export class PublishedVersions {
  static readonly numHeld = 2;
  #held: readonly PublishedVersion[] = [];

  /** Oldest first. */
  get versions(): readonly number[] {
    return this.#held.map(({ version }) => version);
  }

  /** To be called before the memory of the oldest version is written to. */
  makeRoom(): void {
    this.#held = this.#held.slice(-(PublishedVersions.numHeld - 1));
  }

  add(version: number, bytes: Uint8Array): void {
    this.makeRoom();
    this.#held = [...this.#held.filter((held) => held.version !== version), { version, bytes }];
  }

  /** Nothing is published any more, and pulls of what was end. */
  clear(): void {
    this.#held = [];
  }

  /** @throws E_VERSION_NOT_PUBLISHED */
  get(version: number): PublishedVersion {
    const held = this.#held.find((candidate) => candidate.version === version);
    if (held === undefined) throw this.#notPublished(version);
    return held;
  }

  /** @throws E_VERSION_NOT_PUBLISHED when the bytes may have been overwritten */
  assertHeld(published: PublishedVersion): void {
    if (!this.#held.includes(published)) throw this.#notPublished(published.version);
  }

  #notPublished(version: number): LockstepError {
    return new LockstepError("E_VERSION_NOT_PUBLISHED", { version, published: this.versions });
  }
}
