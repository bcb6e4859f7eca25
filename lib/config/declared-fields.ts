import type { z } from "zod";

/** A kind of a part of a run that has keys of the configuration. */
interface DeclaresKeys {
  readonly title: string;
  readonly fields: z.ZodRawShape;
}

type Intersection<Union> = (Union extends unknown ? (each: Union) => void : never) extends (
  all: infer All,
) => void
  ? All
  : never;

/** The keys of all kinds of a registry, in its order. */
type DeclaredFields<Kinds extends readonly Pick<DeclaresKeys, "fields">[]> = Intersection<
  Kinds[number]["fields"]
>;

export const declaredFields = <const Kinds extends readonly Pick<DeclaresKeys, "fields">[]>(
  kinds: Kinds,
): DeclaredFields<Kinds> =>
  Object.assign({}, ...kinds.map(({ fields }) => fields)) as DeclaredFields<Kinds>;

/** The same as sections of the configuration, by title; a kind without keys has none. */
export const declaredSections = (
  kinds: readonly DeclaresKeys[],
): Readonly<Record<string, z.ZodRawShape>> =>
  Object.fromEntries(
    kinds
      .filter(({ fields }) => Object.keys(fields).length > 0)
      .map(({ title, fields }) => [title, fields]),
  );
