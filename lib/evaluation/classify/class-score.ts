/** A class of a text, or an output of a regression. */
export interface ClassScore {
  readonly label: string;
  /** Probability of the class; the number itself of a regression. */
  readonly score: number;
}
