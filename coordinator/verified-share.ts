import { createHmac } from "node:crypto";

/**
 * Which pieces of work a second worker computes too: a share of them, drawn by a seed that workers do not know, so
 * that none can tell where it would be found out.
 */
export class VerifiedShare {
  readonly #share: number;
  readonly #seed: string;

  /** @param share 0 to 1 */
  constructor(share: number, seed: string) {
    this.#share = share;
    this.#seed = seed;
  }

  /** Whether any piece is. */
  get isAny(): boolean {
    return this.#share > 0;
  }

  has(kind: "group" | "evaluation" | "measurement", step: number, item: number): boolean {
    if (this.#share === 0 || this.#share === 1) return this.#share === 1;
    const digest = createHmac("sha256", this.#seed).update(`${kind} ${step} ${item}`).digest();
    return digest.readUInt32LE(0) / 2 ** 32 < this.#share;
  }
}
