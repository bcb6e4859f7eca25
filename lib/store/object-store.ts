import { setTimeout as delay } from "node:timers/promises";
import type { S3Client } from "@aws-sdk/client-s3";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { StoreSettings } from "#lib/core/saved-files";
import { storeUrl } from "./location.js";

type Sdk = typeof import("@aws-sdk/client-s3");

/** Attempts of one call, with pauses that grow: what fails after them is the caller's to repeat. */
const maxAttempts = 5;
const connectTimeoutMs = 10_000;
/** Without a byte; a store that says nothing for so long is asked again. */
const silenceTimeoutMs = 60_000;
/** Before an answer that broke off is asked for again; doubled each time. */
const readPauseMs = 100;
/** One list of keys is read whole. */
const maxListedObjects = 1_000_000;
/** Keys of one call to delete. */
const keysPerDelete = 1_000;

export interface StoredObject {
  /** Without the store's prefix. */
  readonly key: string;
  readonly sizeBytes: number;
  /** Another one where its bytes are others; "" where the store tells none. */
  readonly tag: string;
}

/**
 * Objects below a prefix of an S3-compatible store. Credentials are found as the official client finds them, which is
 * loaded here alone. Keys are given without the prefix.
 */
export class ObjectStore {
  readonly settings: StoreSettings;
  readonly #sdk: Sdk;
  readonly #client: S3Client;

  private constructor(settings: StoreSettings, sdk: Sdk) {
    this.settings = settings;
    this.#sdk = sdk;
    const { endpoint, region } = settings;
    this.#client = new sdk.S3Client({
      maxAttempts,
      // Of a range some stores tell the whole object's. What is read has checksums of its own.
      responseChecksumValidation: "WHEN_REQUIRED",
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      // A store of one's own has none, and the client asks for one all the same.
      ...(region === undefined && endpoint === undefined ? {} : { region: region ?? "us-east-1" }),
      requestHandler: {
        connectionTimeout: connectTimeoutMs,
        requestTimeout: silenceTimeoutMs,
        throwOnRequestTimeout: true,
      },
    });
  }

  static async open(settings: StoreSettings): Promise<ObjectStore> {
    // The pinned version works with every Node that is supported here.
    process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true";
    return new ObjectStore(settings, await import("@aws-sdk/client-s3"));
  }

  url(key = ""): string {
    return storeUrl(this.settings, key);
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const { PutObjectCommand } = this.#sdk;
    await this.#call(key, (of) =>
      this.#client.send(new PutObjectCommand({ ...of, Body: bytes, ContentLength: bytes.length })),
    );
  }

  /**
   * Stores an object where another one is, or none.
   *
   * @param expected tag of the object that is replaced; null: there is none; "any": whatever is there
   * @returns whether it was stored; where it was not, it may have been by an attempt whose answer was lost
   */
  async putIf(key: string, bytes: Uint8Array, expected: string | null): Promise<boolean> {
    const { PutObjectCommand } = this.#sdk;
    const condition =
      expected === "any" ? {} : expected === null ? { IfNoneMatch: "*" } : { IfMatch: expected };
    try {
      await this.#call(key, (of) =>
        this.#client.send(
          new PutObjectCommand({
            ...{ ...of, Body: bytes, ContentLength: bytes.length },
            ...condition,
          }),
        ),
      );
      return true;
    } catch (error) {
      // The object that was to be replaced may be gone.
      if (isNamed(error, "PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")) {
        return false;
      }
      throw error;
    }
  }

  /**
   * Whether the store keeps to conditions of writes.
   *
   * @param key of an object that is stored and removed
   */
  async hasConditions(key: string): Promise<boolean> {
    const bytes = new TextEncoder().encode("Whether conditional writes are supported\n");
    await this.put(key, bytes);
    try {
      for (const expected of [null, `"${"0".repeat(32)}"`]) {
        if (await this.putIf(key, bytes, expected)) return false;
      }
      return true;
    } catch (error) {
      if (isNamed(error, "NotImplemented")) return false;
      throw error;
    } finally {
      await this.delete([key]);
    }
  }

  /** @returns undefined where there is none. @throws E_FILE_TOO_LARGE */
  async get(key: string, limitBytes: number): Promise<Uint8Array | undefined> {
    return (await this.getTagged(key, limitBytes))?.bytes;
  }

  /** The same with the tag by which a write may say that it replaces this. */
  async getTagged(
    key: string,
    limitBytes: number,
  ): Promise<{ readonly bytes: Uint8Array; readonly tag: string } | undefined> {
    const { GetObjectCommand } = this.#sdk;
    try {
      return await this.#call(key, async (of) => {
        const {
          Body,
          ContentLength = 0,
          ETag: tag = "",
        } = await this.#client.send(new GetObjectCommand(of));
        if (ContentLength > limitBytes) {
          await Body?.transformToWebStream().cancel();
          const details = { file: this.url(key), actualBytes: ContentLength, limitBytes };
          throw new LockstepError("E_FILE_TOO_LARGE", details);
        }
        return { bytes: (await Body?.transformToByteArray()) ?? new Uint8Array(), tag };
      });
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Fills `into` with an object's bytes from a place on. @throws E_FILE_TRUNCATED */
  async readInto(key: string, into: Uint8Array, offset: number): Promise<void> {
    if (into.length === 0) return;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#readOnce(key, into, offset);
      } catch (error) {
        // The client repeats a call, not the reading of its answer.
        if (attempt === maxAttempts || isMissing(error)) throw error;
        await delay(readPauseMs * 2 ** attempt);
      }
    }
  }

  async #readOnce(key: string, into: Uint8Array, offset: number): Promise<void> {
    const { GetObjectCommand } = this.#sdk;
    const Range = `bytes=${offset}-${offset + into.length - 1}`;
    await this.#call(key, async (of) => {
      const { Body, ContentRange } = await this.#client.send(
        new GetObjectCommand({ ...of, Range }),
      );
      if (ContentRange?.startsWith(`bytes ${offset}-`) !== true && offset > 0) {
        await Body?.transformToWebStream().cancel();
        throw this.#refused(key, `bytes from ${offset} on were asked for, and others came`);
      }
      let gotBytes = 0;
      if (Body !== undefined) {
        for await (const piece of Body.transformToWebStream() as unknown as AsyncIterable<Uint8Array>) {
          if (gotBytes + piece.length > into.length) break;
          into.set(piece, gotBytes);
          gotBytes += piece.length;
        }
      }
      if (gotBytes === into.length) return;
      const details = { file: this.url(key), offset, wantedBytes: into.length, gotBytes };
      throw new LockstepError("E_FILE_TRUNCATED", details);
    });
  }

  /** Objects whose keys begin so, sorted by key. */
  async list(start: string): Promise<readonly StoredObject[]> {
    const { ListObjectsV2Command } = this.#sdk;
    const { bucket, prefix } = this.settings;
    const found: StoredObject[] = [];
    let token: string | undefined;
    do {
      const answer = await this.#call(start, () =>
        this.#client.send(
          new ListObjectsV2Command({
            ...{ Bucket: bucket, Prefix: `${prefix}${start}` },
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
        ),
      );
      for (const { Key = "", Size: sizeBytes = 0, ETag: tag = "" } of answer.Contents ?? []) {
        if (Key.startsWith(prefix)) found.push({ key: Key.slice(prefix.length), sizeBytes, tag });
      }
      token = answer.IsTruncated === true ? answer.NextContinuationToken : undefined;
    } while (token !== undefined && found.length < maxListedObjects);
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  async delete(keys: readonly string[]): Promise<void> {
    const { DeleteObjectsCommand } = this.#sdk;
    const { bucket, prefix } = this.settings;
    for (let done = 0; done < keys.length; done += keysPerDelete) {
      const some = keys.slice(done, done + keysPerDelete);
      const Objects = some.map((key) => ({ Key: `${prefix}${key}` }));
      const { Errors = [] } = await this.#call(some[0] as string, () =>
        this.#client.send(
          new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } }),
        ),
      );
      const [error] = Errors;
      if (error === undefined) continue;
      const problem = `it was not removed: ${error.Message ?? error.Code}`;
      throw new LockstepError("E_CHECKPOINT_STORE", {
        place: `s3://${bucket}/${error.Key}`,
        problem,
      });
    }
  }

  /** In the store, without its bytes passing through here. */
  async copy(from: string, to: string): Promise<void> {
    const { CopyObjectCommand } = this.#sdk;
    const { bucket, prefix } = this.settings;
    const CopySource = `${bucket}/${prefix}${from}`.split("/").map(encodeURIComponent).join("/");
    await this.#call(to, (of) => this.#client.send(new CopyObjectCommand({ ...of, CopySource })));
  }

  /** Begins an object that comes in parts. @returns its number */
  async beginUpload(key: string): Promise<string> {
    const { CreateMultipartUploadCommand } = this.#sdk;
    const { UploadId } = await this.#call(key, (of) =>
      this.#client.send(new CreateMultipartUploadCommand({ ...of, ChecksumAlgorithm: "CRC32" })),
    );
    if (UploadId === undefined) throw this.#refused(key, "it gave an upload no number");
    return UploadId;
  }

  async uploadPart(
    key: string,
    uploadId: string,
    partNumber: number,
    bytes: Uint8Array,
  ): Promise<UploadedPart> {
    const { UploadPartCommand } = this.#sdk;
    const { ETag, ChecksumCRC32 } = await this.#call(key, (of) =>
      this.#client.send(
        new UploadPartCommand({
          ...{ ...of, UploadId: uploadId, PartNumber: partNumber, Body: bytes },
          ...{ ContentLength: bytes.length, ChecksumAlgorithm: "CRC32" },
        }),
      ),
    );
    return {
      PartNumber: partNumber,
      ETag,
      ...(ChecksumCRC32 === undefined ? {} : { ChecksumCRC32 }),
    };
  }

  async completeUpload(
    key: string,
    uploadId: string,
    parts: readonly UploadedPart[],
  ): Promise<void> {
    const { CompleteMultipartUploadCommand } = this.#sdk;
    await this.#call(key, (of) =>
      this.#client.send(
        new CompleteMultipartUploadCommand({
          ...{ ...of, UploadId: uploadId, MultipartUpload: { Parts: [...parts] } },
        }),
      ),
    );
  }

  async abortUpload(key: string, uploadId: string): Promise<void> {
    const { AbortMultipartUploadCommand } = this.#sdk;
    await this.#call(key, (of) =>
      this.#client.send(new AbortMultipartUploadCommand({ ...of, UploadId: uploadId })),
    );
  }

  /** Of writers that were killed: parts that nobody sees and somebody pays for. */
  async abortUploads(start: string): Promise<void> {
    const { ListMultipartUploadsCommand } = this.#sdk;
    const { bucket, prefix } = this.settings;
    try {
      const { Uploads = [] } = await this.#call(start, () =>
        this.#client.send(
          new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: `${prefix}${start}` }),
        ),
      );
      for (const { Key = "", UploadId = "" } of Uploads) {
        if (!Key.startsWith(`${prefix}${start}`)) continue;
        await this.abortUpload(Key.slice(prefix.length), UploadId);
      }
    } catch (error) {
      // It ended meanwhile, or a store that has none says so with an error.
      if (!isNamed(error, "NoSuchUpload")) throw error;
    }
  }

  close(): void {
    this.#client.destroy();
  }

  async #call<T>(
    key: string,
    action: (of: { readonly Bucket: string; readonly Key: string }) => Promise<T>,
  ): Promise<T> {
    const { bucket, prefix } = this.settings;
    try {
      return await action({ Bucket: bucket, Key: `${prefix}${key}` });
    } catch (error) {
      if (isLockstepError(error)) throw error;
      throw this.#refused(key, problemOf(error), error);
    }
  }

  #refused(key: string, problem: string, cause?: unknown): LockstepError {
    return new LockstepError("E_CHECKPOINT_STORE", { place: this.url(key), problem }, { cause });
  }
}

interface UploadedPart {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
  readonly ChecksumCRC32?: string;
}

/** In words: some of the client's errors say no more than their name. */
function problemOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { name, message } = error;
  const { code } = error as NodeJS.ErrnoException;
  const said = message === "" || message === "UnknownError" ? "" : `: ${message}`;
  return `${code ?? name}${said}`.replace(/\.$/, "");
}

const isMissing = (error: unknown): boolean => isNamed(error, "NoSuchKey", "NotFound");

const isNamed = (error: unknown, ...names: readonly string[]): boolean =>
  error instanceof Error && error.cause instanceof Error && names.includes(error.cause.name);
