const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = [
  ...["January", "February", "March", "April", "May", "June", "July", "August", "September"],
  ...["October", "November", "December"],
];
const msPerDay = 86_400_000;

const pad = (value: number, width: number, fill = "0"): string =>
  String(value).padStart(width, fill);

/** Days before a date in its year. */
const dayOfYear = (date: Date): number =>
  Math.round((utc(date) - Date.UTC(date.getFullYear(), 0, 1)) / msPerDay);
const utc = (date: Date): number => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
/** Whole weeks of a year that begin with a day of the week (0: Sunday). */
const weekOfYear = (date: Date, firstDay: number): number =>
  Math.floor((dayOfYear(date) + 7 - ((date.getDay() - firstDay + 7) % 7)) / 7);

/** Year and week of ISO 8601: a week belongs to the year of its Thursday. */
function isoWeek(date: Date): { year: number; week: number } {
  const thursday = new Date(utc(date) + (4 - (date.getDay() || 7)) * msPerDay);
  const year = thursday.getUTCFullYear();
  const week = 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / msPerDay / 7);
  return { year, week };
}

/** Padding of numbers and, where a directive is made of others, those. */
type Directive = (date: Date) => string | readonly [value: number, width: number, fill?: string];

const hour12 = (date: Date): number => date.getHours() % 12 || 12;
const directives: Readonly<Record<string, Directive>> = {
  a: (date) => (days[date.getDay()] ?? "").slice(0, 3),
  A: (date) => days[date.getDay()] ?? "",
  b: (date) => (months[date.getMonth()] ?? "").slice(0, 3),
  B: (date) => months[date.getMonth()] ?? "",
  c: (date) => strftime(date, "%a %b %e %H:%M:%S %Y"),
  C: (date) => [Math.floor(date.getFullYear() / 100), 2],
  d: (date) => [date.getDate(), 2],
  D: (date) => strftime(date, "%m/%d/%y"),
  e: (date) => [date.getDate(), 2, " "],
  f: (date) => pad(date.getMilliseconds() * 1000, 6),
  F: (date) => strftime(date, "%Y-%m-%d"),
  g: (date) => [isoWeek(date).year % 100, 2],
  G: (date) => [isoWeek(date).year, 1],
  h: (date) => (months[date.getMonth()] ?? "").slice(0, 3),
  H: (date) => [date.getHours(), 2],
  I: (date) => [hour12(date), 2],
  j: (date) => [dayOfYear(date) + 1, 3],
  k: (date) => [date.getHours(), 2, " "],
  l: (date) => [hour12(date), 2, " "],
  m: (date) => [date.getMonth() + 1, 2],
  M: (date) => [date.getMinutes(), 2],
  n: () => "\n",
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  P: (date) => (date.getHours() < 12 ? "am" : "pm"),
  r: (date) => strftime(date, "%I:%M:%S %p"),
  R: (date) => strftime(date, "%H:%M"),
  s: (date) => [Math.floor(date.getTime() / 1000), 1],
  S: (date) => [date.getSeconds(), 2],
  t: () => "\t",
  T: (date) => strftime(date, "%H:%M:%S"),
  u: (date) => [date.getDay() || 7, 1],
  U: (date) => [weekOfYear(date, 0), 2],
  V: (date) => [isoWeek(date).week, 2],
  w: (date) => [date.getDay(), 1],
  W: (date) => [weekOfYear(date, 1), 2],
  x: (date) => strftime(date, "%m/%d/%y"),
  X: (date) => strftime(date, "%H:%M:%S"),
  y: (date) => [date.getFullYear() % 100, 2],
  Y: (date) => [date.getFullYear(), 1],
  // A date without a zone, as `datetime.now()` makes it.
  z: () => "",
  Z: () => "",
  "%": () => "%",
};

/**
 * Python's `datetime.strftime` on Linux in the locale C, with glibc's flags: `%-d` without padding, `%_d`
 * padded with blanks, `%0e` with zeros, `%^a` in capitals, `%#Z` with the case turned.
 */
export function strftime(date: Date, format: string): string {
  return format.replace(
    /%([-_0^#]*)(\d*)[EO]?(.)/gsu,
    (whole, flags: string, width: string, letter: string) => {
      const directive = Object.hasOwn(directives, letter) ? directives[letter] : undefined;
      if (directive === undefined) return whole;
      const value = directive(date);
      let text: string;
      if (typeof value === "string") text = value.padStart(Number(width), " ");
      else {
        const [number, least, fill = "0"] = value;
        const flag = Array.from(flags)
          .reverse()
          .find((each) => "-_0".includes(each));
        const padding = flag === "_" ? " " : flag === "0" ? "0" : fill;
        text = flag === "-" ? String(number) : pad(number, Number(width) || least, padding);
      }
      if (flags.includes("#") && letter === "p") return text.toLowerCase();
      return /[\^#]/.test(flags) ? text.toUpperCase() : text;
    },
  );
}
