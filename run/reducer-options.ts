import { createHash, randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve as absolute } from "node:path";
import type { CoordinatorOptions } from "#coordinator/options";
import { apartFrom } from "#coordinator/recovery";
import { startMirrored } from "#coordinator/reducer/mirrored-shard";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { LoadValues } from "#lib/core/wire-space";
import type { EventBus } from "#lib/wire/event-bus";
import type { ShardFiles, StoredTensors } from "#lib/wire/reducer-messages";
import { isStoreUrl } from "#lib/store/location";
import type { PreparedRun } from "./prepared-run.js";
import type { ResumePoint } from "./resume.js";

/**
 * What a coordinator needs of its shards where they are processes.
 *
 * @param options.addresses host:port of each, in the order of the shards
 */
export async function reducerOptions(
  run: PreparedRun,
  resume: ResumePoint | undefined,
  options: {
    readonly addresses: readonly string[];
    readonly bus: EventBus;
    /** What a coordinator before left. */
    readonly recovery: CoordinatorOptions["recovery"];
  },
): Promise<Pick<CoordinatorOptions, "startShard" | "numShards" | "files">> {
  const { addresses, bus, recovery } = options;
  const { output_dir, reducer_timeout_ms: timeoutMs } = run.config;
  const { reducer_replicas: numReplicas, reducer_compare_steps: compareSteps } = run.config;
  const remote = {
    secret: await coordinatorSecret(output_dir),
    timeoutMs,
    // Own ones are where the coordinator is, by whatever name workers call that.
    isElsewhere: run.config.reducers !== null,
    note: (text: string) => bus.publish({ type: "note", text }),
  };
  const numShards = addresses.length / numReplicas;
  const primaries = startRemoteShards(addresses.slice(0, numShards), remote);
  const mirrors = startRemoteShards(addresses.slice(numShards), remote);
  return {
    numShards,
    startShard:
      numReplicas === 1
        ? primaries
        : startMirrored({
            ...{ replicas: [primaries, mirrors], compareSteps, bus },
            isReached: (status) =>
              recovery !== undefined && apartFrom(recovery, [status], run) === undefined,
          }),
    files: await shardFiles(run, resume),
  };
}

/** What reducers read by themselves, under the paths that it has here. */
async function shardFiles(
  { parameters, model }: PreparedRun,
  resume: ResumePoint | undefined,
): Promise<ShardFiles> {
  const directory = absolute(model.directory);
  const { layout, loadMasters, frozen, loadFrozen } = parameters;
  const masters = storedTensors(directory, layout, loadMasters);
  const stayed =
    frozen === undefined || loadFrozen === undefined
      ? undefined
      : storedTensors(directory, frozen, loadFrozen);
  return {
    ...(resume === undefined
      ? masters.tensors.length > 0 && { masters }
      : // Of a store the coordinator reads the ranges.
        !isStoreUrl(resume.directory) && { checkpoint: await checkpointOf(resume) }),
    // A space in wire form is read as a whole, or not at all.
    ...(stayed !== undefined &&
      stayed.tensors.length === frozen?.tensors.length && { frozen: stayed }),
  };
}

const storedTensors = (
  directory: string,
  layout: ParameterLayout,
  { storedAs }: LoadValues,
): StoredTensors => ({
  directory,
  tensors: layout.tensors.flatMap(({ name: ofRun }, tensor) => {
    const name = storedAs?.(ofRun);
    return name === undefined ? [] : [{ tensor, name }];
  }),
});

async function checkpointOf({
  directory,
}: ResumePoint): Promise<NonNullable<ShardFiles["checkpoint"]>> {
  const record = await readFile(join(directory, checkpointRecordFile));
  const sha256 = createHash("sha256").update(record).digest("hex");
  return { directory: absolute(directory), sha256 };
}

const secretFile = "reducers.secret";

/**
 * What coordinators of an output directory show to their reducers, one after the other, and workers do not know: the
 * first one makes it.
 */
async function coordinatorSecret(outputDir: string): Promise<string> {
  const folder = join(outputDir, claimFolder);
  const file = join(folder, secretFile);
  try {
    await mkdir(folder, { recursive: true });
    for (;;) {
      const made = randomBytes(32).toString("hex");
      await writeFile(file, made, { flag: "wx", mode: 0o600 }).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      });
      const secret = (await readFile(file, "utf8")).trim();
      if (/^[0-9a-f]{64}$/.test(secret)) return secret;
      // Whoever made it died, or the disk was full.
      await rm(file, { force: true });
    }
  } catch (error) {
    throw explainWriteError(error, file);
  }
}
