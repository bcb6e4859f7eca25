/**
 * A benchmark: one command of ours and one of a peer, each a fresh process that measures one or more rows
 * of the table, so that what is dear to start (a model, a process group) is started once for all of them.
 */
import type { Workspace } from "./workspace.js";

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface Row {
  readonly name: string;
  /** What is measured, for the table. */
  readonly what: string;
  readonly unit: string;
  /** Bounds ours / peer, or ours itself, in its unit, where the row has no peer. */
  readonly bar: number;
  readonly direction: "at most" | "at least";
  /** The name of the value that both processes print. @default the row's name */
  readonly value?: string;
  /** The bar is absolute. */
  readonly withoutPeer?: true;
}

export interface Experiment {
  readonly name: string;
  readonly rows: readonly Row[];
  readonly ours: (workspace: Workspace, pair: number) => Promise<Command> | Command;
  /** None where every bar is absolute. */
  readonly peer?: (workspace: Workspace, pair: number) => Promise<Command> | Command;
  /**
   * The numbers that both print under `check`, and how far they may be apart, relative to the peer's. They
   * are compared in every pair before its times count.
   */
  readonly tolerances: Readonly<Record<string, number>>;
}

/** What a measuring process prints as its last line, as JSON. */
export interface Measurement {
  /** Seconds, rates or bytes, as the row's unit says; a row finds its own by name. */
  readonly values: Readonly<Record<string, number>>;
  readonly check: Readonly<Record<string, number>>;
}

export interface RowResult {
  readonly row: Row;
  /** Medians, and null where nothing could be measured. */
  readonly ours: number | null;
  readonly peer: number | null;
  readonly ratio: number | null;
  readonly holds: boolean;
  /** By pair. */
  readonly samples: readonly (readonly [ours: number, peer: number | null])[];
  readonly problem?: string;
}
