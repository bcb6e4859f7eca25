import { errorCatalogue, isLockstepError } from "#lib/core/errors/index";
import type { BufferMeter } from "./meters.js";

/** Seconds of processor time that an input may take: a machine that is slow or busy changes nothing. */
export const maxInputCpuSeconds = 5;
/** Array buffers that an input of at most 256 KiB may ask for, bytes, unless its target says otherwise. */
export const usualMaxBufferBytes = 64 * 2 ** 20;
/** By how much an input may raise the highest resident memory of its process, bytes. */
const maxResidentGrowthBytes = 192 * 2 ** 20;
/** Longest message for a person, characters. */
const maxMessageChars = 8_192;

/** What became of an input: a value, an error of the catalogue, or what must not be. */
type Verdict =
  | { readonly kind: "value" }
  | { readonly kind: "refused"; readonly code: string }
  | { readonly kind: "fault"; readonly problem: string; readonly stack: string };

interface TrialOptions {
  readonly maxBufferBytes: number;
  readonly meter: BufferMeter;
  /** What was done that may not be, since the last input: connections, rejections that nobody handled. */
  readonly takeViolations: () => readonly string[];
}

const fault = (problem: string, stack = ""): Verdict => ({ kind: "fault", problem, stack });

/** Runs one input and holds what it did against the limits. */
export async function tryInput(
  run: () => unknown,
  { maxBufferBytes, meter, takeViolations }: TrialOptions,
): Promise<Verdict> {
  meter.bytes = 0;
  const cpuBefore = process.cpuUsage();
  const peakBefore = peakResidentBytes();
  const verdict = await verdictOf(run);
  const { user, system } = process.cpuUsage(cpuBefore);
  const cpuSeconds = (user + system) / 1e6;
  const grownBytes = peakResidentBytes() - peakBefore;
  const [violation] = takeViolations();
  if (verdict.kind === "fault") return verdict;
  if (violation !== undefined) return fault(violation);
  if (cpuSeconds > maxInputCpuSeconds) {
    return fault(`took ${cpuSeconds.toFixed(1)} s of processor time, then ${describe(verdict)}`);
  }
  if (meter.bytes > maxBufferBytes) {
    const mebibytes = (meter.bytes / 2 ** 20).toFixed(0);
    return fault(`asked for ${mebibytes} MiB of buffers, then ${describe(verdict)}`);
  }
  if (grownBytes > maxResidentGrowthBytes) {
    const mebibytes = (grownBytes / 2 ** 20).toFixed(0);
    return fault(`took ${mebibytes} MiB of memory, then ${describe(verdict)}`);
  }
  return verdict;
}

export const describe = (verdict: Verdict): string =>
  verdict.kind === "refused"
    ? verdict.code
    : verdict.kind === "value"
      ? "a value"
      : verdict.problem;

async function verdictOf(run: () => unknown): Promise<Verdict> {
  try {
    await run();
    return { kind: "value" };
  } catch (error) {
    if (!isLockstepError(error)) {
      const [what, stack] =
        error instanceof Error
          ? [`${error.name}: ${error.message}`, error.stack ?? ""]
          : [String(error), ""];
      return fault(what.slice(0, 1_000), stack.slice(0, 4_000));
    }
    if (!Object.hasOwn(errorCatalogue, error.code))
      return fault(`${error.code} is in no catalogue`);
    if (error.message.length > maxMessageChars) {
      return fault(`${error.code} with a message of ${error.message.length} characters`);
    }
    return { kind: "refused", code: error.code };
  }
}

const peakResidentBytes = (): number => process.resourceUsage().maxRSS * 1024;
