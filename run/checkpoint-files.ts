import type { CheckpointRecord, OwnedCheckpoint } from "#lib/checkpoint/index";
import { ownFolder } from "#lib/checkpoint/checked-files";
import type { PlaceOf, WrittenFiles } from "./tensor-files.js";

export const stateFile = `${ownFolder}/state.json`;
export const configFile = `${ownFolder}/config.yaml`;

export interface SavedCheckpoint {
  readonly directory: string;
  readonly bytes: number;
  /** Of them, in files that are those of the checkpoint before and were not stored again. */
  readonly sharedBytes: number;
}

/**
 * Fills a temporary directory.
 *
 * @param placeOf where files of tensors are written, if not there
 * @returns files that threads wrote
 */
export type WriteCheckpoint = (
  temporary: string,
  placeOf: PlaceOf | undefined,
) => Promise<WrittenFiles>;

/** Where checkpoints are: in the output directory, or in a store. */
export interface CheckpointPlace {
  /** By which a checkpoint is found again. */
  directoryOf(name: string): string;
  /** From the first saved to the last. */
  list(): Promise<readonly OwnedCheckpoint[]>;
  record(name: string): Promise<CheckpointRecord | undefined>;
  /** Makes a checkpoint appear whole or not at all. @param previous the one before, of which files are shared */
  save(
    name: string,
    write: WriteCheckpoint,
    previous: string | undefined,
  ): Promise<SavedCheckpoint>;
  remove(directory: string): Promise<void>;
  /** Removes what saves and removals that died have left. Nothing may be saved meanwhile. */
  sweep(): Promise<void>;
}
