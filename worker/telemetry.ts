import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";
import { createProcessorReader } from "./device.js";
import type { DeviceReading } from "./options.js";

/** The device that a worker computes on: what it is, and how busy it is. */
export interface DeviceTelemetry {
  readonly deviceType: "cpu" | "gpu";
  /** Everything of it that decides the bits of a result. */
  readonly deviceKind: string;
  /** Whether the device multiplies bfloat16 faster than float32: what `bf16: auto` is on it. */
  readonly hasBf16Products: boolean;
  /** The same of float16; TensorFlow has no such products for processors. */
  readonly hasFp16Products: boolean;
  /** The latest reading; never waits. */
  readonly read: () => DeviceReading;
  readonly close: () => void;
}

interface TelemetryOptions {
  /** Do not look for a GPU. */
  readonly useCpu?: boolean;
  /** Compute threads of the worker: what a busy processor device is measured against. */
  readonly cpuThreads?: number;
  /** @default "nvidia-smi" */
  readonly nvidiaSmi?: string;
  /** `CUDA_VISIBLE_DEVICES` of the worker: its first index or id is read. */
  readonly visibleDevices?: string | undefined;
}

const queryTimeoutMs = 10_000;
const pollIntervalMs = 1_000;
const minReadIntervalMs = 500;
/** One line of six short fields. */
const maxReplyBytes = 64 * 1024;

/** A GPU when `nvidia-smi` shows one, else the processor. */
export async function openDeviceTelemetry(
  options: TelemetryOptions = {},
): Promise<DeviceTelemetry> {
  const gpu = options.useCpu === true ? undefined : await openGpu(options);
  return gpu ?? openProcessor(options);
}

function openProcessor({ cpuThreads }: TelemetryOptions): DeviceTelemetry {
  const readNow = createProcessorReader(cpuThreads);
  let latest = readNow();
  let readAtMs = performance.now();
  // Heartbeats and scrapes both read; a share over a few milliseconds would be noise.
  const read = (): DeviceReading => {
    if (performance.now() - readAtMs >= minReadIntervalMs) {
      latest = readNow();
      readAtMs = performance.now();
    }
    return latest;
  };
  const processor = readProcessor();
  return {
    deviceType: "cpu",
    deviceKind: processorKind(processor),
    hasBf16Products: hasBf16Products(processor),
    hasFp16Products: false,
    read,
    close: () => {},
  };
}

/** Fields of one line of `nvidia-smi --format=csv,noheader,nounits`. */
interface GpuLine extends DeviceReading {
  readonly name: string;
  readonly driver: string;
}

const queryFields = "name,driver_version,utilization.gpu,memory.used,memory.total";

/** Utilisation comes in percent, memory in MiB; a field that a card lacks reads "[N/A]" and counts as 0. */
export function parseGpuLine(line: string): GpuLine | undefined {
  const fields = line.split(",").map((field) => field.trim());
  if (fields.length !== 5) return undefined;
  const [name = "", driver = "", utilization = "", used = "", total = ""] = fields;
  const figure = (text: string): number => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : 0);
  return {
    name,
    driver,
    utilization: Math.min(1, figure(utilization) / 100),
    memoryUsedBytes: figure(used) * 2 ** 20,
    memoryTotalBytes: figure(total) * 2 ** 20,
  };
}

/** GPUs that `nvidia-smi` lists; 0 without the program or a driver. */
export async function countGpus(nvidiaSmi = "nvidia-smi"): Promise<number> {
  try {
    const { stdout } = await promisify(execFile)(nvidiaSmi, ["--list-gpus"], {
      timeout: queryTimeoutMs,
      maxBuffer: maxReplyBytes,
    });
    return stdout.split("\n").filter((line) => line.startsWith("GPU ")).length;
  } catch {
    return 0;
  }
}

/** Compute capability from which NVIDIA's tensor cores take bfloat16 (Ampere). */
const firstBf16Capability = 8;
/** From which they take float16 (Volta). */
const firstFp16Capability = 7;

/** NaN where the driver is too old to say. */
async function computeCapability(program: string, device: string): Promise<number> {
  const query = ["--query-gpu=compute_cap", "--format=csv,noheader,nounits", `--id=${device}`];
  try {
    const { stdout } = await promisify(execFile)(program, query, {
      timeout: queryTimeoutMs,
      maxBuffer: maxReplyBytes,
    });
    return Number.parseFloat(stdout);
  } catch {
    return Number.NaN;
  }
}

async function openGpu(options: TelemetryOptions): Promise<DeviceTelemetry | undefined> {
  const program = options.nvidiaSmi ?? "nvidia-smi";
  const device = options.visibleDevices?.split(",")[0]?.trim();
  // An empty list or -1 hides all GPUs from CUDA.
  if (device === "" || device === "-1") return undefined;
  const query = [
    `--query-gpu=${queryFields}`,
    "--format=csv,noheader,nounits",
    ...(device === undefined ? ["--id=0"] : [`--id=${device}`]),
  ];
  let first: GpuLine | undefined;
  try {
    const { stdout } = await promisify(execFile)(program, query, {
      timeout: queryTimeoutMs,
      maxBuffer: maxReplyBytes,
    });
    first = parseGpuLine(stdout.trim().split("\n")[0] ?? "");
  } catch {
    // No such program, or no driver: there is no GPU to compute on.
    return undefined;
  }
  if (first === undefined) return undefined;
  const capability = await computeCapability(program, device ?? "0");
  let latest: GpuLine = first;
  // One process for the whole run: starting one takes longer than a reading.
  const child: ChildProcess = spawn(program, [...query, `--loop-ms=${pollIntervalMs}`], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  // Without readings the last one stays; training does not depend on them.
  child.on("error", () => {});
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on("line", (line) => {
      latest = parseGpuLine(line) ?? latest;
    });
  }
  child.unref();
  return {
    deviceType: "gpu",
    deviceKind: `gpu/${latest.name}/driver ${latest.driver}`,
    hasBf16Products: capability >= firstBf16Capability,
    hasFp16Products: capability >= firstFp16Capability,
    read: () => latest,
    close: () => child.kill(),
  };
}
