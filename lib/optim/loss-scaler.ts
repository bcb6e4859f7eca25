/** Constants of dynamic loss scaling. */
export interface LossScaling {
  readonly initialScale: number;
  /** What the scale is multiplied by after `growthInterval` updates in a row. */
  readonly growthFactor: number;
  /** What it is multiplied by after a gradient that is not finite. */
  readonly backoffFactor: number;
  readonly growthInterval: number;
}

/** Defaults of torch.amp.GradScaler, and of transformers with `fp16: true`. */
export const gradScalerDefaults: LossScaling = Object.freeze({
  initialScale: 65_536,
  growthFactor: 2,
  backoffFactor: 0.5,
  growthInterval: 2_000,
});

/** What a run that goes on needs of it. */
export interface LossScalerState {
  readonly scale: number;
  /** Updates in a row since the scale last changed. */
  readonly growthTracker: number;
}

/** Largest float32: torch keeps the scale in float32 and does not let it grow into infinity. */
const maxFloat32 = (2 - 2 ** -23) * 2 ** 127;

/** Dynamic loss scale for float16 gradients, with the semantics of torch.amp.GradScaler. */
export class LossScaler {
  readonly #scaling: LossScaling;
  #state: LossScalerState;

  constructor(scaling: LossScaling, state?: LossScalerState) {
    this.#scaling = scaling;
    this.#state = Object.freeze(state ?? { scale: scaling.initialScale, growthTracker: 0 });
  }

  get scale(): number {
    return this.#state.scale;
  }

  /** What a run saves; `new LossScaler(scaling, state)` goes on from it. */
  get state(): LossScalerState {
    return this.#state;
  }

  /**
   * To be called once a step, after the decision to apply it.
   *
   * @param foundNonFinite whether the summed gradient had an infinity or NaN; then the optimizer is
   *   skipped and the scale shrinks
   */
  update(foundNonFinite: boolean): void {
    const { growthFactor, backoffFactor, growthInterval } = this.#scaling;
    const { scale } = this.#state;
    const growthTracker = this.#state.growthTracker + 1;
    if (foundNonFinite) this.#set(Math.fround(scale * backoffFactor), 0);
    else if (growthTracker < growthInterval) this.#set(scale, growthTracker);
    else {
      const grown = Math.fround(scale * growthFactor);
      this.#set(grown <= maxFloat32 ? grown : scale, 0);
    }
  }

  #set(scale: number, growthTracker: number): void {
    this.#state = Object.freeze({ scale, growthTracker });
  }
}
