/** What a prompt was continued with. */
export interface Continuation {
  /** Without the end token. With a stop string, up to the token that completed it. */
  readonly tokens: Int32Array;
  /** Of the tokens, cut before a stop string; absent without `decode`. */
  readonly text?: string;
  readonly finish: "end-token" | "stop-string" | "length";
}
