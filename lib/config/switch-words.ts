/** YAML 1.1, which Python reads, has more words for true and false. */
export function readSwitch(value: unknown): unknown {
  if (typeof value !== "string") return value;
  if (/^(yes|on)$/i.test(value)) return true;
  return /^(no|off)$/i.test(value) ? false : value;
}
