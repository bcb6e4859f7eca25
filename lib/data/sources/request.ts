/** What is asked of a path. */
export interface SourceRequest {
  /** A file, a directory or a pattern. */
  readonly path: string;
  /** What its examples are for: decides a directory's split where none is named. */
  readonly purpose: "train" | "validation";
  /** The split of a directory. */
  readonly split?: string | undefined;
  /** The subset (`config_name`) of a directory whose README.md lists several. */
  readonly subset?: string | undefined;
}

export interface SourceFiles {
  readonly files: readonly string[];
  /** What of a directory is read and what is not: lines for a person. */
  readonly notes: readonly string[];
}
