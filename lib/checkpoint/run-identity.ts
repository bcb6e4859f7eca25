import type { DropoutRates } from "#lib/core/dropout";

/** What makes a run the run it is, by content: two with equal ones end with the same weights. */
export interface RunIdentity {
  /** Settings that change the result, by key. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** SHA-256 of the rows of each side; validation is null where nothing is kept for it. */
  readonly data: {
    readonly training: string;
    readonly validation: string | null;
    /** Absent where there are no general data. */
    readonly generalTraining?: string;
    readonly generalValidation?: string | null;
  };
  /** Keys that the rows come of: they explain another SHA-256 and are not compared by themselves. */
  readonly dataSettings: Readonly<Record<string, unknown>>;
  /** What the run starts from, or adds adapters to. */
  readonly base: {
    /** SHA-256 of its weights. */
    readonly weights: string;
    /** Fields of config.json that the computation can depend on. */
    readonly config: Readonly<Record<string, unknown>>;
  };
  /** What training drops, by kind; absent in records of versions that dropped nothing. */
  readonly dropout?: DropoutRates;
}

/** Fields of config.json that say how it was stored, and by whom. */
const fieldsOfStorage = new Set([
  "_name_or_path",
  "transformers_version",
  "torch_dtype",
  "dtype",
  "architectures",
]);

export const decisiveFields = (
  modelConfig: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> =>
  Object.fromEntries(Object.entries(modelConfig).filter(([name]) => !fieldsOfStorage.has(name)));

/** The sides of a run's data, in words. */
const dataSides = {
  training: "training",
  validation: "validation",
  generalTraining: "general training",
  generalValidation: "general validation",
} as const;

/** What of a run is known before its data is read. */
type EarlyIdentity = Pick<RunIdentity, "settings">;

/**
 * Says for each thing that is other than it was which it is, what it was and what it is now.
 *
 * @param skipped settings that are not compared
 */
export function differingSettings(
  before: EarlyIdentity,
  now: EarlyIdentity,
  skipped: readonly string[] = [],
): string[] {
  return changes(before.settings, now.settings, skipped);
}

/** The same for all that identities hold. */
export function identityDifferences(
  before: RunIdentity,
  now: RunIdentity,
  skipped: readonly string[] = [],
): string[] {
  const differences = differingSettings(before, now, skipped);
  const weights =
    before.base.weights === now.base.weights
      ? []
      : [`the base model's weights ${digests(before.base.weights, now.base.weights)}`];
  const fields = changes(before.base.config, now.base.config).map(
    (change) => `in the base model's config.json ${change}`,
  );
  const sides = (Object.keys(dataSides) as (keyof typeof dataSides)[]).filter(
    (side) => (before.data[side] ?? null) !== (now.data[side] ?? null),
  );
  const settings = changes(before.dataSettings, now.dataSettings);
  const why =
    sides.length === 0
      ? ""
      : settings.length === 0
        ? " (no setting changed: the files hold something else, or the tokenizer does)"
        : ` (${settings.join(", ")})`;
  const data = sides.map(
    (side, i) =>
      `the ${dataSides[side]} data ${digests(before.data[side] ?? null, now.data[side] ?? null)}${i === sides.length - 1 ? why : ""}`,
  );
  const rates = (of: RunIdentity): Readonly<Record<string, unknown>> => ({
    dropout: of.dropout ?? {},
  });
  const dropout = changes(rates(before), rates(now));
  return [...differences, ...weights, ...fields, ...dropout, ...data];
}

/** What makes a result another one than is asked for; what nothing is asked for does not count. */
export const differingResults = (
  before: Readonly<Record<string, unknown>>,
  asked: Readonly<Record<string, unknown>>,
): string[] =>
  changes(
    before,
    asked,
    Object.keys(before).filter((key) => !(key in asked)),
  );

function changes(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
  skipped: readonly string[] = [],
): string[] {
  const names = new Set([...Object.keys(before), ...Object.keys(now)]);
  return [...names].flatMap((name) => {
    if (skipped.includes(name)) return [];
    // A key that a record's Lockstep did not have is one that was left open.
    if ((before[name] ?? null) === null && (now[name] ?? null) === null) return [];
    const [was, is] = [canonical(before[name]), canonical(now[name])];
    return was === is ? [] : [`${name} was ${short(was)} and is now ${short(is)}`];
  });
}

const digests = (before: string | null, now: string | null): string =>
  `had SHA-256 ${shortDigest(before)} and now ${shortDigest(now)}`;

const shortDigest = (digest: string | null): string =>
  digest === null ? "none" : `${digest.slice(0, 12)}...`;

const short = (text: string): string => (text.length > 200 ? `${text.slice(0, 200)}...` : text);

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  if (value === undefined) return "not there";
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}
