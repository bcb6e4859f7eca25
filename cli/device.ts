import { parseArgs } from "node:util";
import { engineEnvironment } from "#lib/core/engine-environment";
import { LockstepError } from "#lib/core/errors/index";
import { cpuCount } from "#lib/core/cpu-count";
import { installedEngine } from "#lib/graph/binding";
import { productRatesNow } from "#lib/graph/device-probe";
import { openDeviceTelemetry } from "#worker/telemetry";

export const deviceUsage = `Usage: lockstep device [--json] [--use-cpu] [--threads N]

Shows what this machine computes on: its kind, which decides the bits of a result, what bf16: auto is on it,
and how fast it multiplies matrices.
`;
