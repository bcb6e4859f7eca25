import { cpuCount } from "#lib/core/cpu-count";
import { engineEnvironment } from "#lib/core/engine-environment";
import { installedEngine } from "#lib/graph/binding";
import { productRatesNow } from "#lib/graph/device-probe";
import { openDeviceTelemetry } from "#worker/telemetry";
import { readCommandLine, usageOf } from "./command-line.js";

/** Facts of `lockstep device --json`. */
interface DeviceFacts {
  readonly deviceKind: string;
  readonly deviceType: "cpu" | "gpu";
  /** What `bf16: auto` is. */
  readonly bf16: boolean;
  /** What `fp16: auto` is where bf16 is not chosen. */
  readonly fp16: boolean;
  readonly threads: number;
  /** Of matrix products, now; absent where they could not be measured. */
  readonly gflopsPerSecond?: Readonly<Record<"float32" | "bfloat16" | "float16", number>>;
}

/** `lockstep device`. Returns the exit code. */
export async function deviceCommand(args: string[]): Promise<number> {
  const { json, useCpu, threads } = parse(args);
  const telemetry = await openDeviceTelemetry({
    useCpu,
    visibleDevices: process.env["CUDA_VISIBLE_DEVICES"],
  });
  telemetry.close();
  const rates = productRatesNow(threads);
  const facts: DeviceFacts = {
    deviceKind: `${telemetry.deviceKind}, ${installedEngine()}`,
    deviceType: telemetry.deviceType,
    bf16: telemetry.hasBf16Products,
    fp16: telemetry.hasFp16Products,
    threads,
    ...(rates === undefined ? {} : { gflopsPerSecond: rates }),
  };
  process.stdout.write(json ? `${JSON.stringify(facts)}\n` : `${describe(facts).join("\n")}\n`);
  return 0;
}

function describe(facts: DeviceFacts): string[] {
  const { deviceKind, bf16, fp16, threads, gflopsPerSecond: rates } = facts;
  const on = `on ${threads} thread${threads === 1 ? "" : "s"}`;
  return [
    `device      ${deviceKind}`,
    `bf16: auto  ${bf16 ? "true, products in bfloat16" : "false, products in float32"}`,
    `fp16: auto  ${fp16 ? "true, products in float16, where bf16 is not chosen" : "false"}`,
    rates === undefined
      ? "products    could not be measured"
      : `products    ${rates.float32.toFixed(0)} GFLOP/s in float32, ${rates.bfloat16.toFixed(0)} in bfloat16, ${rates.float16.toFixed(0)} in float16, ${on}`,
    ...engineEnvironment(process.env).overruled.map((line) => `warning     ${line}`),
  ];
}

/** @throws E_USAGE */
function parse(args: string[]): { json: boolean; useCpu: boolean; threads: number } {
  const fail = usageOf("device");
  const options = {
    json: { type: "boolean", default: false },
    "use-cpu": { type: "boolean", default: false },
    threads: { type: "string", default: String(cpuCount()) },
  } as const;
  const { values } = readCommandLine(args, options, fail, { allowPositionals: false });
  const threads = Number(values.threads);
  if (!Number.isInteger(threads) || threads < 1) fail("--threads takes a whole number");
  return { json: values.json, useCpu: values["use-cpu"], threads };
}
