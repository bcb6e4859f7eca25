/** What a campaign tells the process that runs inputs, in its environment. */
export interface Assignment {
  readonly target: string;
  readonly seed: number;
  /** Numbers of inputs: from the first on, up to and without the second. */
  readonly from: number;
  readonly to: number;
  /** Kept inputs that are run instead, by path. */
  readonly files?: readonly string[];
  /** The only folder that may be written to. */
  readonly folder: string;
  /** Takes the numbers of {@link Progress}, as they stand before each input. */
  readonly progressFile: string;
}

export const assignmentVariable = "LOCKSTEP_FUZZ_ASSIGNMENT";

/** Float64 each: the input that runs, and how many have ended in a value and in an error of the catalogue. */
export interface Progress {
  readonly input: number;
  readonly numValues: number;
  readonly numRefused: number;
}
export const progressBytes = 3 * 8;

/** A fault of an input. */
export interface FaultMessage {
  readonly kind: "fault";
  readonly input: number;
  readonly problem: string;
  readonly stack: string;
}

/** What the process sends: faults as they come, and figures at its end. */
export type Message =
  | FaultMessage
  | {
      readonly kind: "done";
      readonly codes: Readonly<Record<string, number>>;
      /** In the order of the files. */
      readonly outcomes: readonly string[];
      readonly cpuSeconds: number;
      readonly maxCpuSeconds: number;
      readonly maxBufferBytes: number;
    };
