/** Whether two values of numbers, texts, float arrays, lists and records of them are the same, bit for bit. */
export function hasSameBits(one: unknown, other: unknown): boolean {
  if (one instanceof Float64Array && other instanceof Float64Array) {
    return Buffer.from(one.buffer, one.byteOffset, one.byteLength).equals(
      Buffer.from(other.buffer, other.byteOffset, other.byteLength),
    );
  }
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((item, i) => hasSameBits(item, other[i]));
  }
  if (typeof one === "object" && typeof other === "object" && one !== null && other !== null) {
    const [record, otherRecord] = [one, other] as Readonly<Record<string, unknown>>[];
    const keys = Object.keys(one);
    return (
      keys.length === Object.keys(other).length &&
      keys.every((key) => hasSameBits(record?.[key], otherRecord?.[key]))
    );
  }
  return Object.is(one, other);
}
