import type { MethodFigures, RunFigures } from "./figures.js";

const width = 720;
const height = 480;
const margin = { left: 64, right: 190, top: 24, bottom: 52 };
const colors = ["#4c4c4c", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"];

/** Round numbers of an axis. */
function ticksOf(low: number, high: number): number[] {
  const rough = (high - low) / 6;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) ?? 10);
  const first = Math.ceil(low / step) * step;
  return Array.from({ length: Math.floor((high - first) / step) + 1 }, (_, i) => first + i * step);
}

/**
 * Domain loss against general loss: thin lines are runs from their first evaluation on, a mark is a method's mean at the
 * end with its intervals. Down is learnt, left is kept.
 */
export function forgettingPlot(
  runs: readonly RunFigures[],
  figures: readonly MethodFigures[],
): string {
  const ends = figures.flatMap(({ domain, general }) => [
    { domain: domain.mean - (domain.half || 0), general: general.mean - (general.half || 0) },
    { domain: domain.mean + (domain.half || 0), general: general.mean + (general.half || 0) },
  ]);
  const all = [...runs.flatMap(({ points }) => points), ...ends];
  const range = (of: "domain" | "general"): [number, number] => {
    const values = all.map((point) => point[of]).filter(Number.isFinite);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.05 * (high - low || 1);
    return [low - room, high + room];
  };
  const [xLow, xHigh] = range("general");
  const [yLow, yHigh] = range("domain");
  const x = (value: number): number =>
    margin.left + ((value - xLow) / (xHigh - xLow)) * (width - margin.left - margin.right);
  const y = (value: number): number =>
    height -
    margin.bottom -
    ((value - yLow) / (yHigh - yLow)) * (height - margin.top - margin.bottom);
  const at = (value: number): string => value.toFixed(1);
  const line = (x1: number, y1: number, x2: number, y2: number, style: string): string =>
    `<line x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}" ${style}/>`;
  const text = (x1: number, y1: number, words: string, style = ""): string =>
    `<text x="${at(x1)}" y="${at(y1)}" ${style}>${words}</text>`;
  const [left, right] = [margin.left, width - margin.right];
  const [top, bottom] = [margin.top, height - margin.bottom];
  const grid = 'stroke="#ddd"';
  const middle = 'text-anchor="middle"';
  const parts = [
    ...ticksOf(xLow, xHigh).flatMap((value) => [
      line(x(value), top, x(value), bottom, grid),
      text(x(value), bottom + 18, value.toFixed(2), middle),
    ]),
    ...ticksOf(yLow, yHigh).flatMap((value) => [
      line(left, y(value), right, y(value), grid),
      text(left - 8, y(value) + 4, value.toFixed(2), 'text-anchor="end"'),
    ]),
    text((left + right) / 2, height - 12, "general loss, held out (right: forgotten)", middle),
    `<text transform="translate(16 ${at((top + bottom) / 2)}) rotate(-90)" ${middle}>domain loss, held out (down: learnt)</text>`,
  ];
  for (const [index, { method, domain, general }] of figures.entries()) {
    const color = colors[index % colors.length];
    for (const { points } of runs.filter((run) => run.method === method)) {
      const path = points.map((point) => `${at(x(point.general))},${at(y(point.domain))}`);
      parts.push(
        `<polyline points="${path.join(" ")}" fill="none" stroke="${color}" stroke-opacity="0.35"/>`,
      );
    }
    const [cx, cy] = [x(general.mean), y(domain.mean)];
    const bar = `stroke="${color}" stroke-width="2"`;
    if (Number.isFinite(general.half)) {
      parts.push(line(x(general.mean - general.half), cy, x(general.mean + general.half), cy, bar));
      parts.push(line(cx, y(domain.mean - domain.half), cx, y(domain.mean + domain.half), bar));
    }
    parts.push(`<circle cx="${at(cx)}" cy="${at(cy)}" r="5" fill="${color}"/>`);
    const legendY = top + 16 + 20 * index;
    parts.push(`<circle cx="${at(right + 20)}" cy="${at(legendY - 4)}" r="5" fill="${color}"/>`);
    parts.push(text(right + 32, legendY, method));
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}
