/** A class of a text. */
export interface ClassScore {
  readonly label: string;
  /** Probability of the class; the number itself of a regression. */
  readonly score: number;
}
