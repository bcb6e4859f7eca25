/** average[i] += weight * (p[i] - average[i]): with weight 1 and an average of 0, p[i] itself. */
export function updateAverage(p: usize, average: usize, n: usize, weight: f32): void {
  const end = p + (n << 2);
  const weights = f32x4.splat(weight);
  while (p < end) {
    const before = v128.load(average);
    const distance = f32x4.sub(v128.load(p), before);
    v128.store(average, f32x4.add(before, f32x4.mul(distance, weights)));
    p += 16;
    average += 16;
  }
}
