import {
  DiscardPolicy,
  type JetStreamManager,
  type KV,
  NatsError,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import { maxRecordBytes } from "#lib/queue/record-store";
import type { NatsLink } from "./connection.js";
import { codeOf, noSuitablePeers, streamErrors } from "./event-stream.js";

/** Bucket of the jobs of an account. */
export const bucket = "lockstep-jobs";
/** What it is to JetStream. */
export const bucketStream = `KV_${bucket}`;
const replicasInCluster = 3;
/** A stream of the name is there, with other settings. */
const nameInUse = 10_058;

/** A key-value bucket as the library makes one, but that its messages may have a time to live. */
const config: Partial<StreamConfig> & { readonly allow_msg_ttl: boolean } = {
  name: bucketStream,
  description: "jobs of Lockstep",
  subjects: [`$KV.${bucket}.>`],
  retention: RetentionPolicy.Limits,
  storage: StorageType.File,
  discard: DiscardPolicy.New,
  max_msgs_per_subject: 1,
  max_msg_size: maxRecordBytes,
  allow_rollup_hdrs: true,
  allow_msg_ttl: true,
  // A follower may be behind; what is read is to be what the leader has.
  allow_direct: false,
};

/**
 * The bucket of jobs. One that is there already, whoever made it, keeps its settings.
 *
 * @param mayMake makes it where there is none
 * @throws E_QUEUE_UNMADE
 */
export async function openBucket(link: NatsLink, place: string, mayMake: boolean): Promise<KV> {
  const manager = await link.manager();
  try {
    await manager.streams.info(bucketStream);
  } catch (error) {
    if (codeOf(error) !== streamErrors.notFound) throw error;
    if (!mayMake) throw new LockstepError("E_QUEUE_UNMADE", { place }, { cause: error });
    await make(manager, link.connection.info?.cluster !== undefined);
  }
  return link.streams.views.kv(bucket, { bindOnly: true, allow_direct: false });
}

async function make(manager: JetStreamManager, isCluster: boolean): Promise<void> {
  const add = async (replicas: number): Promise<void> => {
    try {
      await manager.streams.add({ ...config, num_replicas: replicas });
    } catch (error) {
      if (codeOf(error) !== nameInUse) throw error;
    }
  };
  try {
    await add(isCluster ? replicasInCluster : 1);
  } catch (error) {
    if (!isCluster || !(error instanceof NatsError)) throw error;
    if (!noSuitablePeers.has(codeOf(error) ?? 0)) throw error;
    await add(1);
  }
}
