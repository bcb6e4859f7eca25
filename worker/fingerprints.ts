import { type Fingerprint, HeldDigest, heldLayout } from "#lib/core/held-weights";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { passPieces, wirePieces } from "#lib/core/wire-space";

type Space = Fingerprint["space"];

/** What an engine was given of each space, and what it says that it holds. */
export class EngineFingerprints {
  readonly #job: WorkerJob;
  readonly #engine: TrainingEngine;
  readonly #sent = new Map<Space, HeldDigest>();

  constructor(job: WorkerJob, engine: TrainingEngine) {
    this.#job = job;
    this.#engine = engine;
  }

  /** A piece of a space, on its way to the engine. */
  given(space: Space, piece: number, wireBytes: Uint8Array): void {
    const layout = this.#layoutOf(space);
    const range = layout && wirePieces(layout)[piece];
    if (layout === undefined || range === undefined) return;
    if (piece === 0) this.#sent.set(space, new HeldDigest(layout, this.#job.precision));
    this.#sent.get(space)?.addSent(range, wireBytes);
  }

  /** Reads back the spaces that were digested when they were given; nothing where the engine cannot. */
  async take(): Promise<readonly Fingerprint[]> {
    const prints: Fingerprint[] = [];
    for (const [space, sent] of this.#sent) {
      const layout = this.#layoutOf(space);
      if (layout === undefined || this.#engine.readHeld === undefined) continue;
      prints.push({ space, sent: sent.hex, held: await this.#heldOf(space, layout) });
    }
    return prints;
  }

  async #heldOf(space: Space, layout: ParameterLayout): Promise<string> {
    const { precision } = this.#job;
    const digest = new HeldDigest(layout, precision);
    const held = heldLayout(layout, precision);
    const pieces = wirePieces(held);
    await passPieces(
      held,
      async () => {},
      (piece, bytes) => {
        const range = pieces[piece];
        if (range === undefined) return;
        this.#engine.readHeld?.(space, piece, bytes);
        digest.addHeld(range, bytes);
      },
    );
    return digest.hex;
  }

  #layoutOf(space: Space): ParameterLayout | undefined {
    return space === "trained" ? this.#job.layout : this.#job.frozen;
  }
}
