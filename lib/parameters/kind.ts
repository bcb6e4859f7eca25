import type { z } from "zod";

/** A way to choose what a run trains. */
export interface ParametersKind<Fields extends z.ZodRawShape = z.ZodRawShape> {
  /** The value of `finetuning_type` that names it. */
  readonly name: string;
  /** What it is called where its keys are spoken of. */
  readonly title: string;
  /** What is trained, and by which key, for messages about what is not here. */
  readonly summary: string;
  /** The key and the value that turn it on. */
  readonly turnedOnBy: readonly [key: string, value: unknown];
  /** Its keys of the configuration; with another value of one it is another run. */
  readonly fields: Fields;
  /** float32: trained matrices travel so in a run of bfloat16 products too. */
  readonly wireDtype?: "float32";
  /** Rules over its keys, where it is the one that is chosen. @throws E_CONFIG_UNSUPPORTED */
  checkKeys?(config: z.output<z.ZodObject<Fields>>): void;
}
