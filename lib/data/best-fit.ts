/**
 * Packs items into bins of one capacity by best-fit decreasing (Ding et al. 2024, arXiv 2404.10830):
 * the longest first, each into the bin with the least room that still holds it. Deterministic: equal
 * lengths keep their order.
 *
 * @param lengths each at most `capacity`
 * @returns the items of each bin
 */
export function packBestFit(lengths: ArrayLike<number>, capacity: number): Uint32Array[] {
  const byLength: number[][] = Array.from({ length: capacity + 1 }, () => []);
  for (let item = 0; item < lengths.length; item++) byLength[lengths[item] ?? 0]?.push(item);
  const bins: number[][] = [];
  // Bins by their room, and a bit for each room that some bin has.
  const byRoom: number[][] = Array.from({ length: capacity + 1 }, () => []);
  const rooms = new Uint32Array((capacity >>> 5) + 1);
  for (let length = capacity; length > 0; length--) {
    for (const item of byLength[length] ?? []) {
      const room = smallestAtLeast(rooms, length);
      const stack = byRoom[room];
      let bin = stack?.pop();
      if (bin === undefined) bin = bins.push([]) - 1;
      else if (stack?.length === 0)
        rooms[room >>> 5] = (rooms[room >>> 5] ?? 0) & ~(1 << (room & 31));
      bins[bin]?.push(item);
      const left = (room < 0 ? capacity : room) - length;
      byRoom[left]?.push(bin);
      rooms[left >>> 5] = (rooms[left >>> 5] ?? 0) | (1 << (left & 31));
    }
  }
  return bins.map((items) => Uint32Array.from(items));
}

/** The lowest set bit from a position on, -1 where there is none. */
function smallestAtLeast(bits: Uint32Array, position: number): number {
  let word = position >>> 5;
  let rest = (bits[word] ?? 0) & (-1 << (position & 31));
  while (rest === 0) {
    if (++word >= bits.length) return -1;
    rest = bits[word] ?? 0;
  }
  return word * 32 + 31 - Math.clz32(rest & -rest);
}
