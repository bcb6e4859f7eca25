import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheDirectory } from "#lib/core/paths";
import { processorKind, readProcessor } from "#lib/core/processor";
import { hasProducts } from "./bf16-kernels.js";
import { installedEngine, loadBinding } from "./binding.js";
import type { GraphDtype } from "./builder.js";

/** Raised when a trial asks for something else: what is in the cache is then of no use. */
const trialsVersion = 2;
/** Far more than the slowest processor takes. */
const trialTimeoutMs = 60_000;

const trialsProgram = fileURLToPath(new URL("./device-trials.js", import.meta.url));
const findings = new Map<string, unknown>();

/**
 * What a trial of lib/graph/device-trials.ts finds on this device; undefined where its process did not
 * survive it. Asked once for an engine and a processor; what was found is kept in the cache.
 */
function find(...trial: readonly string[]): unknown {
  const facts = [trialsVersion, installedEngine(), processorKind(readProcessor()), ...trial];
  const key = createHash("sha256").update(JSON.stringify(facts)).digest("hex").slice(0, 16);
  if (findings.has(key)) return findings.get(key);
  const file = join(cacheDirectory(), "devices", `${trial[0]}-${key}.json`);
  let finding: unknown;
  try {
    finding = (JSON.parse(readFileSync(file, "utf8")) as { finding?: unknown }).finding;
  } catch {
    // Not tried yet, or a cache that cannot be read.
    const outcome = runTrial(trial);
    finding = outcome.finding;
    if (outcome.isLasting) keep(file, { facts, finding });
  }
  findings.set(key, finding);
  return finding;
}

/** What a trial finds now. It lasts unless the machine was too busy for it. */
function runTrial(trial: readonly string[]): { finding: unknown; isLasting: boolean } {
  const { status, stdout, error } = spawnSync(process.execPath, [trialsProgram, ...trial], {
    encoding: "utf8",
    timeout: trialTimeoutMs,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const isLasting = error === undefined;
  try {
    return { finding: status === 0 ? JSON.parse(stdout) : undefined, isLasting };
  } catch {
    return { finding: undefined, isLasting };
  }
}

/** A cache that cannot be written costs the next process a second, no more. */
function keep(file: string, content: unknown): void {
  try {
    mkdirSync(dirname(file), { recursive: true });
    const temporary = `${file}.${process.pid}-${randomBytes(4).toString("hex")}`;
    writeFileSync(temporary, `${JSON.stringify(content, null, 2)}\n`);
    renameSync(temporary, file);
  } catch {}
}

/**
 * Whether the engine that is installed has packed products (lib/graph/packed-product.ts) of a type on this
 * device. Loads the engine.
 */
export function canPackProducts(dtype: GraphDtype): boolean {
  if (loadBinding().isUsingGpuDevice()) return false;
  // oneDNN may take a type that it has no kernel for, and end the process at its first run.
  if (!hasProducts(dtype)) return false;
  return find(`packs-${dtype}`) === true;
}

/** Matrix products of this processor, GFLOP/s. */
interface ProductRates {
  readonly float32: number;
  readonly bfloat16: number;
  readonly float16: number;
}

/** Measured once for a number of threads; undefined where that failed. */
const productRates = (threads: number): ProductRates | undefined =>
  ratesOf(find("rates", String(threads)));

/** How many times the time of float32 products those of bfloat16 take; below 1 is noise where this is asked. */
export function bf16SlowdownOf(threads: number): number | undefined {
  const rates = productRates(threads);
  return rates && Math.max(1, rates.float32 / rates.bfloat16);
}

/** The same of float16. */
export function fp16SlowdownOf(threads: number): number | undefined {
  const rates = productRates(threads);
  return rates && Math.max(1, rates.float32 / rates.float16);
}

/** The same rates, measured now: what else runs shows. */
export const productRatesNow = (threads: number): ProductRates | undefined =>
  ratesOf(runTrial(["rates", String(threads)]).finding);

function ratesOf(finding: unknown): ProductRates | undefined {
  const rates = finding as ProductRates | undefined;
  const isMeasured = (rate: number): boolean => rate > 0;
  return rates !== undefined && [rates.float32, rates.bfloat16, rates.float16].every(isMeasured)
    ? rates
    : undefined;
}
