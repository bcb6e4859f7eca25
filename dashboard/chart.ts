import type { Point } from "./run-state.js";

const namespace = "http://www.w3.org/2000/svg";
const margin = { top: 8, right: 12, bottom: 22, left: 48 };

interface ChartOptions {
  readonly width: number;
  readonly height: number;
  readonly format: (value: number) => string;
  readonly xMax: number;
}

/** A line chart as SVG, with a second, dotted series; figures of the nearest point follow the mouse. */
export function drawChart(
  target: HTMLElement,
  line: readonly Point[],
  dots: readonly Point[],
  options: ChartOptions,
): void {
  const { width, height, format } = options;
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": description(line, format),
  });
  const all = [...line, ...dots];
  if (all.length === 0) {
    const text = element("text", { x: width / 2, y: height / 2, "text-anchor": "middle" });
    text.textContent = "nothing to draw yet";
    svg.append(text);
    target.replaceChildren(svg);
    return;
  }
  const low = Math.min(...all.map(({ y }) => y));
  const high = Math.max(...all.map(({ y }) => y));
  const slack = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
  const [bottom, top] = [low - slack, high + slack];
  const right = Math.max(options.xMax, 1);
  const x = (value: number): number =>
    margin.left + (value / right) * (width - margin.left - margin.right);
  const y = (value: number): number =>
    height -
    margin.bottom -
    ((value - bottom) / (top - bottom)) * (height - margin.top - margin.bottom);

  for (let tick = 0; tick <= 4; tick++) {
    const value = bottom + ((top - bottom) * tick) / 4;
    svg.append(
      element("line", {
        class: "grid",
        x1: margin.left,
        x2: width - margin.right,
        y1: y(value),
        y2: y(value),
      }),
    );
    const label = element("text", { x: margin.left - 6, y: y(value) + 4, "text-anchor": "end" });
    label.textContent = format(value);
    svg.append(label);
  }
  for (const step of [0, right]) {
    const label = element("text", {
      x: x(step),
      y: height - 4,
      "text-anchor": step === 0 ? "start" : "end",
    });
    label.textContent = `step ${step}`;
    svg.append(label);
  }
  const path = (points: readonly Point[]): string =>
    points.map((point) => `${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`).join(" ");
  svg.append(element("polyline", { class: "line", points: path(line) }));
  if (line.length === 1) {
    const [only] = line;
    if (only !== undefined) {
      svg.append(element("circle", { cx: x(only.x), cy: y(only.y), r: 3, fill: "var(--accent)" }));
    }
  }
  const group = element("g", { class: "dots" });
  group.append(element("polyline", { points: path(dots) }));
  for (const point of dots) {
    group.append(element("circle", { cx: x(point.x), cy: y(point.y), r: 4 }));
  }
  svg.append(group);
  addCursor(svg, line, x, { width, height, format });
  target.replaceChildren(svg);
}

function addCursor(
  svg: SVGElement,
  line: readonly Point[],
  x: (value: number) => number,
  { width, height, format }: Pick<ChartOptions, "width" | "height" | "format">,
): void {
  const cursor = element("line", {
    class: "cursor",
    y1: margin.top,
    y2: height - margin.bottom,
    visibility: "hidden",
  });
  const label = element("text", { y: margin.top + 10, visibility: "hidden" });
  svg.append(cursor, label);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    let nearest: Point | undefined;
    for (const point of line) {
      if (nearest === undefined || Math.abs(x(point.x) - at) < Math.abs(x(nearest.x) - at)) {
        nearest = point;
      }
    }
    if (nearest === undefined) return;
    const position = x(nearest.x);
    const isRight = position > width / 2;
    setAttributes(cursor, { x1: position, x2: position, visibility: "visible" });
    setAttributes(label, {
      x: position + (isRight ? -6 : 6),
      "text-anchor": isRight ? "end" : "start",
      visibility: "visible",
    });
    label.textContent = `step ${nearest.x}: ${format(nearest.y)}`;
  });
  svg.addEventListener("pointerleave", () => {
    for (const part of [cursor, label]) part.setAttribute("visibility", "hidden");
  });
}

function description(line: readonly Point[], format: (value: number) => string): string {
  const [first, last] = [line[0], line.at(-1)];
  if (first === undefined || last === undefined) return "no step yet";
  return `from ${format(first.y)} at step ${first.x} to ${format(last.y)} at step ${last.x}`;
}

function element(name: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const created = document.createElementNS(namespace, name);
  setAttributes(created, attributes);
  return created;
}

function setAttributes(
  target: SVGElement,
  attributes: Readonly<Record<string, string | number>>,
): void {
  for (const [name, value] of Object.entries(attributes)) target.setAttribute(name, String(value));
}
