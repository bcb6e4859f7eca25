/** What an engine has to know of a job of bottleneck adapters, beside its two spaces. */
export interface BottleneckJob {
  readonly kind: "adapter";
  /** By layer and part, such as `0.attention`: what the names of the adapter's weights begin with. */
  readonly prefixes: Readonly<Record<string, string>>;
  /** Whether an adapter reads the stream behind the part, norm included, instead of the part's output. */
  readonly readsStream: boolean;
  /** A name of transformers' activations. */
  readonly activation: string;
}
