import type { StoreSettings } from "#lib/core/saved-files";

const scheme = "s3://";
/** Names of buckets by S3's rules, and by older ones of AWS. */
const pattern = /^s3:\/\/([A-Za-z0-9][A-Za-z0-9._-]{2,254})(?:\/(.*))?$/;

export const isStoreUrl = (place: string): boolean => place.startsWith(scheme);

/** @returns undefined for what is no s3://BUCKET or s3://BUCKET/PREFIX */
export function parseStoreUrl(url: string): Pick<StoreSettings, "bucket" | "prefix"> | undefined {
  const [, bucket, path = ""] = pattern.exec(url) ?? [];
  const parts = path.split("/").filter((part) => part !== "");
  if (bucket === undefined || parts.some((part) => part === "." || part === "..")) return undefined;
  return { bucket, prefix: parts.map((part) => `${part}/`).join("") };
}

/** Under which a person finds an object, or all whose keys begin so. */
export const storeUrl = ({ bucket, prefix }: StoreSettings, key = ""): string =>
  `${scheme}${bucket}/${prefix}${key}`.replace(/\/$/, "");

/** The URL of what is above, and the name in it. */
export function splitStoreUrl(url: string): { readonly above: string; readonly name: string } {
  const at = url.replace(/\/+$/, "").lastIndexOf("/");
  return { above: url.slice(0, at), name: url.slice(at + 1).replace(/\/+$/, "") };
}
