import { LockstepError } from "#lib/core/errors/index";

/** The key, among what a weights file says of itself, of the base model's SHA-256; other programs do not read it. */
const digestKey = "lockstep.base_model_sha256";

/** What an adapter's weights file says of itself. @param digest of the base model's weights (see weightsSha256) */
export const adapterMetadata = (digest: string): Readonly<Record<string, string>> => ({
  format: "pt",
  [digestKey]: digest,
});

export const isBoundToBase = (metadata: Readonly<Record<string, string>>): boolean =>
  metadata[digestKey] !== undefined;

/** An adapter's file that may say what base model it belongs to. */
interface BoundAdapter {
  readonly directory: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Compares the weights of a base model with those that an adapter was trained on, where whoever wrote it kept their
 * digest.
 *
 * @param baseName by which the base was found
 * @param digestOf SHA-256 of its weights; asked where there is something to compare
 * @throws E_ADAPTER_BASE
 */
export async function checkBaseDigest(
  { directory: adapter, metadata }: BoundAdapter,
  baseName: string,
  digestOf: () => Promise<string>,
): Promise<void> {
  const expected = metadata[digestKey];
  if (expected === undefined) return;
  const digest = await digestOf();
  if (digest === expected) return;
  const [was, is] = [expected, digest].map((each) => each.slice(0, 12));
  const problem = `its base model ${baseName} has other weights than the one that it was trained on (SHA-256 ${is}..., not ${was}...)`;
  throw new LockstepError("E_ADAPTER_BASE", { adapter, problem });
}
