import { RandomStream } from "#lib/core/random";

/** A narrow domain: reports of a harbour's tide gauges, in the words and the form that such reports have. */

const stations = [
  "Aberlour Quay",
  "Bexhaven",
  "Corran Point",
  "Dunmore Lock",
  "Eastholm",
  "Fairlie",
];
const states = ["rising", "falling", "at the stand", "slack"];
const winds = ["NNE", "ENE", "SSE", "SW by W", "WNW", "N by W"];
const seas = ["smooth", "slight", "moderate", "rough, with swell over the bar"];
const lights = [
  "both lights burn",
  "the inner light is out",
  "the fog signal was tried and sounds",
];
const vessels = ["dredger Marga", "pilot cutter Teal", "barge Hebe", "survey launch Plover"];
const notices = [
  "masters are to keep clear of the spoil ground",
  "the boom is closed until the next half ebb",
  "soundings over the sill are reduced by two tenths",
  "the gauge was wiped and read again",
];

/** Purposes of streams: rows that are learnt and rows that are held out share no numbers. */
const sides = { train: 1, validation: 2 } as const;

/** The reports of a side, each a text. */
export function domainTexts(side: keyof typeof sides, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const random = new RandomStream(sides[side], "generation", index);
    const below = (limit: number): number => Math.floor(random.nextFloat64() * limit);
    const one = (list: readonly string[]): string => list[below(list.length)] ?? "";
    const tenths = (from: number, to: number): string =>
      (from + below(Math.round((to - from) * 10)) / 10).toFixed(1);
    const clock = `${String(below(24)).padStart(2, "0")}${String(below(6) * 10).padStart(2, "0")}Z`;
    const lines = [
      `TIDE REPORT ${below(900) + 100}/${one(stations)} ${clock}`,
      `gauge ${tenths(0.2, 6.4)} m ${one(states)}, sill ${tenths(3, 5)} m, residual +${tenths(0, 0.7)} m`,
      `wind ${one(winds)} ${below(30) + 4} kn, sea ${one(seas)}, glass ${below(50) + 980} hPa`,
      `${one(lights)}; ${one(vessels)} ${below(2) === 0 ? "inward" : "outward"} at ${clock}, draught ${tenths(1.2, 4.8)} m`,
      `notice: ${one(notices)}. ENDS`,
    ];
    return lines.join("\n");
  });
}
