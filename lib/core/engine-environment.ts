import { join } from "node:path";
import { ceilingVariable, readProcessor, xlaCeiling } from "./processor.js";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Whatever begins so is read by TensorFlow, oneDNN, XLA or NVIDIA's libraries, and may decide the bits.
 * What is new to us in a coming version begins so too, so the list is one of beginnings.
 */
const enginePrefixes = ["TF_", "ONEDNN_", "DNNL_", "XLA_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32"];

/** Of those: what decides no bits. */
const harmless =
  /^(TF_CPP_\w+|TF_NUM_INT(ER|RA)OP_THREADS|TF_FORCE_GPU_ALLOW_GROWTH|TF_GPU_ALLOCATOR|TF_CONFIG|TF_DUMP_GRAPH_\w+|(ONEDNN|DNNL)_(VERBOSE\w*|JIT_DUMP|JIT_PROFILE|PRIMITIVE_CACHE_CAPACITY)|CUBLAS_LOG\w+|CUDNN_LOG\w+)$/;
/** Terraform's variables begin like TensorFlow's. */
const terraform =
  /^TF_(ACC|APPEND_USER_AGENT|CLI_\w+|CLOUD_\w+|DATA_DIR|IGNORE|INPUT|IN_AUTOMATION|LOG\w*|PLUGIN_\w+|REATTACH_\w+|REGISTRY_\w+|STATE_\w+|TOKEN_\w+|VAR_\w+|WORKSPACE)$/;
/** Of XLA's flags. */
const harmlessXlaFlag = /^--xla_(dump_\w+|gpu_cuda_data_dir)(=.*)?$/;

interface EngineEnvironment {
  /** What the engine runs with; undefined: not set. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** A line for each variable that somebody set and that has no effect. */
  readonly overruled: readonly string[];
}

/**
 * The variables that decide what computes, whatever the environment says: two engines of one device kind
 * run with the same ones. oneDNN is on, also where TensorFlow leaves it off (a processor without
 * AVX-512): its float32 products take 0.8 of the time of Eigen's there.
 *
 * @throws E_ENGINE_ENVIRONMENT
 */
export function engineEnvironment(env: Environment): EngineEnvironment {
  const { ceiling } = readProcessor(env);
  const xlaFlags = (env["XLA_FLAGS"] ?? "").split(/\s+/).filter((flag) => flag !== "");
  const keptXlaFlags = xlaFlags.filter((flag) => harmlessXlaFlag.test(flag));
  const ownXlaFlags = [
    "--xla_gpu_deterministic_ops=true",
    "--xla_gpu_autotune_level=0",
    ...(ceiling === undefined ? [] : [`--xla_cpu_max_isa=${xlaCeiling(ceiling)}`]),
  ];
  const own: Record<string, string | undefined> = {
    TF_ENABLE_ONEDNN_OPTS: "1",
    TF_DETERMINISTIC_OPS: "1",
    NVIDIA_TF32_OVERRIDE: "0",
    TF_XLA_FLAGS: xlaCacheFlag(env, ceiling),
    [ceilingVariable]: ceiling,
    XLA_FLAGS: [...ownXlaFlags, ...keptXlaFlags].join(" "),
  };
  const overruled: string[] = [];
  const values: Record<string, string | undefined> = { ...own };
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || !enginePrefixes.some((prefix) => name.startsWith(prefix))) continue;
    if (harmless.test(name) || terraform.test(name)) continue;
    values[name] = own[name];
    // Of the process that started this one, which has other threads or another ceiling.
    if (name === "TF_XLA_FLAGS" && own[name] !== undefined && isXlaCacheFlag(value, env)) continue;
    if (name === "XLA_FLAGS") {
      const dropped = xlaFlags.filter(
        (flag) => !keptXlaFlags.includes(flag) && !ownXlaFlags.includes(flag),
      );
      if (dropped.length > 0) overruled.push(describe(`${name}=${dropped.join(" ")}`));
    } else if (own[name] !== value && name !== ceilingVariable && name !== "DNNL_MAX_CPU_ISA") {
      overruled.push(describe(`${name}=${value}`, own[name]));
    }
  }
  return {
    values: {
      TF_CPP_MIN_LOG_LEVEL: env["TF_CPP_MIN_LOG_LEVEL"] ?? "2",
      TF_FORCE_GPU_ALLOW_GROWTH: env["TF_FORCE_GPU_ALLOW_GROWTH"] ?? "true",
      ...values,
    },
    overruled,
  };
}

/**
 * Names a directory for functions that XLA has compiled. TensorFlow compares a function with what is
 * there, but neither the processor nor its own version: so it is for processes of one test run, on one
 * machine, which compile the same small functions a hundred times.
 */
const xlaCacheVariable = "LOCKSTEP_XLA_CACHE";

function xlaCacheFlag(env: Environment, ceiling: string | undefined): string | undefined {
  const directory = env[xlaCacheVariable] ?? "";
  if (directory === "") return undefined;
  const parts = [ceiling ?? "all", env["TF_NUM_INTRAOP_THREADS"] ?? "default"];
  return `--tf_xla_persistent_cache_directory=${join(directory, parts.join("-"))}`;
}

const isXlaCacheFlag = (value: string, env: Environment): boolean =>
  value.startsWith(`--tf_xla_persistent_cache_directory=${env[xlaCacheVariable]}/`);

const describe = (setting: string, own?: string): string =>
  `${setting} of the environment has no effect: what decides the bits of a result is the engine's to set` +
  (own === undefined ? "" : ` (${own})`);

let threads: string | undefined;

/** TensorFlow's threads for an operation, "" for all of the machine's; undefined where it is not loaded. */
export const loadedThreads = (): string | undefined => threads;

/** Sets them in this process. TensorFlow reads them when it is loaded and later, so: before it is. */
export function setEngineEnvironment(): void {
  threads = process.env["TF_NUM_INTRAOP_THREADS"] ?? "";
  for (const [name, value] of Object.entries(engineEnvironment(process.env).values)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}
