import { readdir, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { FrontDoor } from "#coordinator/front-door";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { saveFilesAtomically } from "#lib/checkpoint/index";
import type { ResolvedConfig } from "#lib/core/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import type { WireSecurity } from "#lib/wire/security";
import { onStopSignals } from "./stop-signals.js";

/** Written last, once a result is whole and pushed; removed first, when a run begins in the directory. */
const markerName = "lockstep-finished.json";
const maxMarkerBytes = 16 << 20;

/**
 * Keys that neither change the result nor how far training goes. With another value of any other key the run
 * is opened and judged in full.
 */
const indifferentKeys: ReadonlySet<string> = new Set<keyof ResolvedConfig>([
  ...(["resume_from_checkpoint", "output_dir", "run_name", "disable_tqdm", "user_signal"] as const),
  ...(["workers", "max_worker_restarts", "listen", "advertise_host", "reducer_shards"] as const),
  ...(["metrics_host", "metrics_port", "http_token_file", "join_token_file", "insecure"] as const),
  ...(["tls_ca_file", "tls_cert_file", "tls_key_file"] as const),
  ...(["heartbeat_interval_ms", "heartbeat_timeout_ms", "lease_timeout_ms"] as const),
  ...(["logging_strategy", "logging_steps", "logging_first_step"] as const),
  ...(["save_strategy", "save_steps", "save_total_limit"] as const),
]);
/** What a run goes on writing beside its result. */
const notOfTheResult: ReadonlySet<string> = new Set([
  ...[markerName, "lockstep.yaml", "trainer_log.jsonl", "prometheus-workers.json"],
]);

export interface FinishedRun {
  readonly step: number;
  readonly totalSteps: number;
}

/** Remembers that `output_dir` holds the whole result of this configuration. */
export async function markFinished(config: ResolvedConfig, run: FinishedRun): Promise<void> {
  const facts = await factsOf(config);
  const result = await resultStamps(config.output_dir);
  const marker = { ...run, ...facts, result };
  await saveFilesAtomically(config.output_dir, async (temporary) => {
    await writeFile(join(temporary, markerName), `${JSON.stringify(marker, null, 2)}\n`);
  });
}

/** A run begins to write into the directory. */
export async function forgetFinished(outputDir: string): Promise<void> {
  await rm(join(outputDir, markerName), { force: true });
}

/**
 * The run that is finished in `output_dir`, where a configuration asks to go on with what is there and nothing
 * is left to do: the settings, the stamps of model and data, and the files of the result are the same. Reads
 * only, and a fraction of a second.
 */
export async function findFinished(config: ResolvedConfig): Promise<FinishedRun | undefined> {
  const wanted = config.resume_from_checkpoint;
  if (wanted !== true && wanted !== "auto") return undefined;
  const file = join(config.output_dir, markerName);
  const marker = await readJsonFile(file, "mark of a finished run", maxMarkerBytes).catch(
    () => undefined,
  );
  if (!isRecord(marker) || !isRecord(marker["result"])) return undefined;
  const { step, totalSteps } = marker;
  if (!Number.isSafeInteger(step) || !Number.isSafeInteger(totalSteps)) return undefined;
  const facts = await factsOf(config);
  for (const part of ["settings", "inputs"] as const) {
    if (JSON.stringify(marker[part]) !== JSON.stringify(facts[part])) return undefined;
  }
  const result = await resultStamps(config.output_dir);
  const isWhole = Object.entries(marker["result"]).every(([name, size]) => result[name] === size);
  return isWhole ? { step: Number(step), totalSteps: Number(totalSteps) } : undefined;
}

export const nothingLeftToDo = ({ output_dir }: ResolvedConfig, run: FinishedRun): string =>
  `nothing left to do: ${output_dir} holds the finished run, ${run.step} of ${run.totalSteps} steps`;

/** Workers that were started with the coordinator need this long to knock. */
const farewellMs = 10_000;

/**
 * Tells the workers that come that there is nothing left to do, for as long as some may be on their way.
 * Where any port may be the coordinator's nobody can have been told of it, and nobody is waited for.
 */
export async function turnWorkersAway(
  config: ResolvedConfig,
  at: { readonly host: string; readonly port: number; readonly security: WireSecurity },
  bus: InProcessEventBus,
): Promise<void> {
  if (at.port === 0) return;
  const { host, port, security } = at;
  const options = { bus, security, listenHost: host, listenPort: port };
  const door = await FrontDoor.open(options).catch((error: unknown) => {
    // Another run has the port, and its workers are not ours.
    if (isLockstepError(error) && error.code === "E_PORT_IN_USE") return undefined;
    throw error;
  });
  if (door === undefined) return;
  let end = (): void => {};
  const everybodyWasTold = new Promise<void>((resolve) => {
    end = resolve;
  });
  const timer = setTimeout(end, farewellMs);
  const signals = onStopSignals({
    onFirst: () => {
      end();
      return true;
    },
    onSecond: () => {},
    onUserSignal: () => true,
  });
  const told = new Set<string>();
  door.turnAway(config.output_dir, (worker) => {
    told.add(worker);
    if (told.size >= config.workers) setImmediate(end);
  });
  try {
    await everybodyWasTold;
  } finally {
    clearTimeout(timer);
    signals.remove();
    await door.close();
  }
}

/** What a configuration asks for, and the stamps of what it reads, in an order that is always the same. */
async function factsOf(config: ResolvedConfig): Promise<{
  readonly settings: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, string>>;
}> {
  const settings = Object.fromEntries(
    Object.entries(config)
      .filter(([key]) => !indifferentKeys.has(key))
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  const { model_name_or_path: model, dataset, eval_dataset, dataset_dir } = config;
  const names = [model, ...textsIn(dataset), ...textsIn(eval_dataset)];
  const paths = [...names, ...names.map((name) => join(dataset_dir, name)), dataset_dir];
  const inputs: Record<string, string> = {};
  for (const path of [...new Set(paths)].sort()) {
    const stamps = await fileStamps(path, byTime, { recursive: true });
    for (const [name, stamp] of Object.entries(stamps)) inputs[join(path, name)] = stamp;
  }
  // As it is read back.
  return JSON.parse(JSON.stringify({ settings, inputs })) as Awaited<ReturnType<typeof factsOf>>;
}

interface FileFacts {
  readonly size: number;
  readonly mtimeMs: number;
}

const byTime = ({ size, mtimeMs }: FileFacts): string =>
  `${size} bytes of ${new Date(mtimeMs).toISOString()}`;

/** A result that is copied back keeps its sizes. */
const resultStamps = (outputDir: string): Promise<Readonly<Record<string, string>>> =>
  fileStamps(outputDir, ({ size }) => String(size), { recursive: false });

/** Of a file, or of the files of a directory; none of what does not exist. */
async function fileStamps(
  path: string,
  stampOf: (of: FileFacts) => string,
  options: { readonly recursive: boolean },
): Promise<Readonly<Record<string, string>>> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined) return {};
  if (!stats.isDirectory()) return { "": stampOf(stats) };
  const stamps: Record<string, string> = {};
  for (const name of (await readdir(path, options)).sort()) {
    const file = await stat(join(path, name)).catch(() => undefined);
    if (file?.isFile() !== true || notOfTheResult.has(basename(name))) continue;
    stamps[name] = stampOf(file);
  }
  return stamps;
}

/** Every text of a value, at any depth. */
function textsIn(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(textsIn);
}
