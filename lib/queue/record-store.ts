/** A record as it stands. */
export interface StoredRecord {
  /** Without its folder. */
  readonly key: string;
  readonly value: string;
  /** Rises with each write of the key. */
  readonly revision: number;
}

export const recordFolders = ["jobs", "beats"] as const;
export type RecordFolder = (typeof recordFolders)[number];

/**
 * Where a queue keeps its records: texts by folder and key, of which a write succeeds only beside the revision that
 * the writer has read. All processes of a queue see the same ones, and what was written survives them.
 *
 * Every method throws E_QUEUE_AWAY where the records cannot be reached now; whether a write that threw was carried
 * out is then unknown.
 */
export interface RecordStore {
  /** For messages. */
  readonly place: string;
  get(folder: RecordFolder, key: string): Promise<StoredRecord | undefined>;
  /**
   * @param revision what is to be replaced; 0: there is none yet
   * @returns whether it was written; otherwise the key has another revision
   */
  write(folder: RecordFolder, key: string, value: string, revision: number): Promise<boolean>;
  /** Whatever was there before. */
  put(folder: RecordFolder, key: string, value: string): Promise<void>;
  remove(folder: RecordFolder, key: string): Promise<void>;
  /** In any order; may lag behind a write of another process for a moment. */
  entries(folder: RecordFolder): Promise<readonly StoredRecord[]>;
  /** Ends once a job may have changed, or the time is over. @param key that job alone */
  changed(timeoutMs: number, signal?: AbortSignal, key?: string): Promise<void>;
  close(): Promise<void>;
}

/** Records of jobs are their configuration and little more. */
export const maxRecordBytes = 512 * 1024;
