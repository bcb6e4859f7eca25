import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A file as the hub keeps it: small ones in git, large ones (LFS) in a store with another address. */
interface HubServerFile {
  readonly content: Buffer;
  readonly isLarge: boolean;
}

interface HubRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly host: "hub" | "store";
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  /** Bytes of a file that were sent. */
  sentBytes: number;
}

interface HubRepository {
  /** Commit of main. */
  commit: string;
  files: Map<string, HubServerFile>;
  isPrivate?: boolean;
  /** The hub's word for a refusal, such as GatedRepo. */
  refusal?: { readonly status: number; readonly code: string };
}

const sha256 = (content: Buffer): string => createHash("sha256").update(content).digest("hex");

/** Git's name of a file's content. */
export const gitBlobHash = (content: Buffer): string =>
  createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");

export const hashOf = ({ content, isLarge }: HubServerFile): string =>
  isLarge ? sha256(content) : gitBlobHash(content);

/**
 * A server of the Hub's shape on loopback: what huggingface_hub and `@huggingface/hub` ask of it for models,
 * with a store of large files at an address of its own, and a log of what was asked.
 */
export class HubServer {
  readonly repositories = new Map<string, HubRepository>();
  readonly log: HubRequest[] = [];
  /** Tokens and their users. */
  readonly users = new Map<string, { readonly name: string; readonly role: string }>();
  /** Called with a file's name before its bytes are sent: where the connection breaks, or stalls. */
  cut: (name: string) => { readonly afterBytes: number; readonly isStalled?: boolean } | undefined =
    () => undefined;
  /** Bytes that are sent instead of a file's own. */
  falsify: (name: string, content: Buffer) => Buffer = (_, content) => content;
  /** Names of earlier days, and what they are called now. */
  readonly aliases = new Map<string, string>();
  /** Whether a Range is followed. */
  hasRanges = true;
  /** Entries of a listing beside the files. */
  extraEntries: unknown[] = [];
  /** Entries a page of a listing has. */
  pageSize = 1000;
  readonly #hub: Server;
  readonly #store: Server;
  readonly #uploads = new Map<string, Buffer>();

  private constructor() {
    this.#hub = createServer((request, response) => void this.#serve("hub", request, response));
    this.#store = createServer((request, response) => void this.#serve("store", request, response));
  }

  static async start(): Promise<HubServer> {
    const server = new HubServer();
    for (const part of [server.#hub, server.#store]) {
      await new Promise<void>((resolve) => part.listen(0, "127.0.0.1", resolve));
    }
    return server;
  }

  get endpoint(): string {
    return addressOf(this.#hub);
  }

  async close(): Promise<void> {
    for (const part of [this.#hub, this.#store]) {
      part.closeAllConnections();
      await new Promise((resolve) => part.close(resolve));
    }
  }

  add(
    id: string,
    files: Readonly<Record<string, Buffer | string>>,
    largeFrom = 1000,
  ): HubRepository {
    const kept = Object.entries(files).map(([name, content]): [string, HubServerFile] => {
      const bytes = Buffer.from(content);
      return [name, { content: bytes, isLarge: bytes.length >= largeFrom }];
    });
    const repository = { commit: commitOf(id, kept), files: new Map(kept) };
    this.repositories.set(id, repository);
    return repository;
  }

  /** Requests for a file's bytes. */
  downloadsOf(name: string): HubRequest[] {
    return this.log.filter(({ sentBytes, path }) => sentBytes > 0 && path.includes(name));
  }

  async #serve(host: HubRequest["host"], request: IncomingMessage, response: ServerResponse) {
    const { method = "GET", url = "/", headers } = request;
    const { authorization, range } = headers;
    const entry: HubRequest = { method, path: url, host, range, authorization, sentBytes: 0 };
    this.log.push(entry);
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const { pathname, searchParams } = new URL(url, "http://loopback");
    if (host === "store") return this.#serveStore(entry, pathname, body, response);
    const path = decodeURIComponent(pathname);
    if (path === "/api/whoami-v2") return this.#whoAmI(authorization, response);
    if (path === "/api/repos/create") return this.#create(authorization, body, response);
    const found =
      /^\/api\/models\/(?<id>.+?)\/(?<what>revision|tree|preupload|commit)\/(?<rest>.+)$/.exec(
        path,
      ) ??
      /^\/(?<id>.+?)\/(?<what>resolve)\/(?<rest>.+)$/.exec(path) ??
      /^\/(?<id>.+?)\.git\/info\/lfs\/objects\/(?<what>batch)(?<rest>)$/.exec(path);
    const { id = "", what = "", rest = "" } = found?.groups ?? {};
    const today = this.aliases.get(id);
    if (today !== undefined) {
      response.writeHead(307, { location: url.replace(`/${id}/`, `/${today}/`) });
      return void response.end();
    }
    const repository = this.repositories.get(id);
    if (repository === undefined)
      return refuse(response, 404, "RepoNotFound", "Repository not found");
    if (repository.refusal !== undefined && what !== "") {
      const { status, code } = repository.refusal;
      return refuse(response, status, code, "Access to this model is restricted");
    }
    const revision = rest.startsWith("refs/")
      ? rest.split("/").slice(0, 3).join("/")
      : rest.split("/")[0];
    if (revision !== "main" && revision !== repository.commit && what !== "batch") {
      return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
    }
    const canWrite = this.users.get(authorization?.slice("Bearer ".length) ?? "")?.role === "write";
    if (["preupload", "commit", "batch"].includes(what) && !canWrite) {
      return refuse(response, 403, "Forbidden", "You may not write here");
    }
    switch (what) {
      case "revision":
        return json(response, {
          _id: id,
          id,
          sha: repository.commit,
          private: false,
          lastModified: 0,
        });
      case "tree":
        return this.#list(
          repository,
          {
            pathname,
            folder: rest.split("/").slice(1).join("/"),
            isRecursive: searchParams.get("recursive") === "true",
          },
          Number(searchParams.get("cursor") ?? 0),
          response,
        );
      case "resolve":
        return this.#resolve(entry, repository, rest.split("/").slice(1).join("/"), response);
      case "preupload":
        return json(response, preupload(JSON.parse(body.toString())));
      case "batch":
        return json(response, this.#batch(JSON.parse(body.toString())));
      default:
        return this.#commit(id, repository, body, response);
    }
  }

  #whoAmI(authorization: string | undefined, response: ServerResponse): void {
    const user = this.users.get(authorization?.slice("Bearer ".length) ?? "");
    if (user === undefined) return refuse(response, 401, "", "Invalid user token.");
    const accessToken = { displayName: "test", role: user.role, createdAt: "2026-01-01T00:00:00Z" };
    return json(response, {
      type: "user",
      name: user.name,
      auth: { type: "access_token", accessToken },
    });
  }

  #create(authorization: string | undefined, body: Buffer, response: ServerResponse): void {
    const user = this.users.get(authorization?.slice("Bearer ".length) ?? "");
    if (user?.role !== "write") return refuse(response, 403, "Forbidden", "You may not write here");
    const { name, organization, visibility } = JSON.parse(body.toString()) as Record<
      string,
      string
    >;
    const id = `${organization}/${name}`;
    if (this.repositories.has(id))
      return refuse(response, 409, "", "You already created this model");
    this.repositories.set(id, {
      commit: commitOf(id, []),
      files: new Map(),
      isPrivate: visibility === "private",
    });
    return json(response, { url: `${this.endpoint}/${id}`, id });
  }

  #list(
    repository: HubRepository,
    {
      pathname,
      folder,
      isRecursive,
    }: { readonly pathname: string; readonly folder: string; readonly isRecursive: boolean },
    cursor: number,
    response: ServerResponse,
  ): void {
    const own = [...repository.files].filter(([name]) => {
      const parent = name.split("/").slice(0, -1).join("/");
      return (
        parent === folder || (isRecursive && (folder === "" || parent.startsWith(`${folder}/`)))
      );
    });
    const entries: unknown[] = own.map(([name, file]) => ({
      type: "file",
      path: name,
      size: file.content.length,
      oid: gitBlobHash(file.content),
      ...(file.isLarge
        ? { lfs: { oid: sha256(file.content), size: file.content.length, pointerSize: 130 } }
        : {}),
    }));
    if (folder === "") {
      const nested = [...repository.files.keys()].flatMap((name) => name.split("/").slice(0, -1));
      for (const path of new Set(["onnx", ...nested])) {
        entries.push({ type: "directory", path, size: 0, oid: "0".repeat(40) });
      }
      entries.push(...this.extraEntries);
    }
    const next = cursor + this.pageSize;
    if (next < entries.length) {
      response.setHeader("link", `<${this.endpoint}${pathname}?cursor=${next}>; rel="next"`);
    }
    json(response, entries.slice(cursor, next));
  }

  #resolve(
    entry: HubRequest,
    repository: HubRepository,
    name: string,
    response: ServerResponse,
  ): void {
    const file = repository.files.get(name);
    response.setHeader("x-repo-commit", repository.commit);
    if (file === undefined) return refuse(response, 404, "EntryNotFound", "Entry not found");
    if (!file.isLarge) {
      response.setHeader("etag", `"${hashOf(file)}"`);
      return this.#send(entry, name, file.content, response);
    }
    response.setHeader("x-linked-etag", `"${hashOf(file)}"`);
    response.setHeader("x-linked-size", file.content.length);
    response.writeHead(302, { location: `${addressOf(this.#store)}/${hashOf(file)}/${name}` });
    response.end();
  }

  #serveStore(entry: HubRequest, path: string, body: Buffer, response: ServerResponse): void {
    const [, hash = "", name = ""] = path.split("/");
    if (entry.method === "PUT") {
      this.#uploads.set(hash, body);
      return json(response, {});
    }
    for (const { files } of this.repositories.values()) {
      const file = files.get(name);
      if (file !== undefined && hashOf(file) === hash) {
        return this.#send(entry, name, file.content, response);
      }
    }
    return refuse(response, 404, "", "no such object");
  }

  #send(entry: HubRequest, name: string, content: Buffer, response: ServerResponse): void {
    const bytes = this.falsify(name, content);
    const asked = this.hasRanges ? /^bytes=(\d+)-(\d+)?$/.exec(entry.range ?? "") : null;
    const start = Number(asked?.[1] ?? 0);
    const end = Math.min(Number(asked?.[2] ?? bytes.length - 1), bytes.length - 1);
    const part = bytes.subarray(start, end + 1);
    response.setHeader("content-length", part.length);
    if (asked !== null) {
      response.setHeader("content-range", `bytes ${start}-${end}/${bytes.length}`);
      response.statusCode = 206;
    }
    if (entry.method === "HEAD") return void response.end();
    const { afterBytes = part.length, isStalled = false } = this.cut(name) ?? {};
    entry.sentBytes = Math.min(afterBytes, part.length);
    if (afterBytes >= part.length) return void response.end(part);
    response.write(part.subarray(0, afterBytes), () => {
      if (!isStalled) response.destroy();
    });
  }

  #batch({ objects }: { readonly objects: readonly { readonly oid: string }[] }) {
    return {
      transfer: "basic",
      objects: objects.map(({ oid }) => ({
        oid,
        ...(this.#uploads.has(oid)
          ? {}
          : { actions: { upload: { href: `${addressOf(this.#store)}/${oid}` } } }),
      })),
    };
  }

  #commit(id: string, repository: HubRepository, body: Buffer, response: ServerResponse): void {
    for (const line of body.toString().split("\n")) {
      const { key, value } = JSON.parse(line) as { key: string; value: Record<string, string> };
      const { path = "", content = "", oid = "" } = value;
      if (key === "file") {
        repository.files.set(path, { content: Buffer.from(content, "base64"), isLarge: false });
      } else if (key === "lfsFile") {
        const uploaded = this.#uploads.get(oid);
        if (uploaded === undefined || sha256(uploaded) !== oid) {
          return refuse(response, 400, "", `${path} was not uploaded`);
        }
        repository.files.set(path, { content: uploaded, isLarge: true });
      } else if (key === "deletedFile") {
        repository.files.delete(path);
      }
    }
    repository.commit = commitOf(id, [...repository.files]);
    const commitUrl = `${this.endpoint}/${id}/commit/${repository.commit}`;
    return json(response, { commitOid: repository.commit, commitUrl, hookOutput: "" });
  }
}

/** The hub takes files above 10 MB into its store; this one from 1000 bytes on. */
function preupload({ files }: { readonly files: readonly { path: string; size: number }[] }) {
  return {
    files: files.map(({ path, size }) => ({ path, uploadMode: size >= 1000 ? "lfs" : "regular" })),
  };
}

function commitOf(id: string, files: readonly (readonly [string, HubServerFile])[]): string {
  const hash = createHash("sha1").update(id);
  for (const [name, file] of files) hash.update(name).update(file.content);
  return hash.digest("hex");
}

function addressOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function json(response: ServerResponse, value: unknown): void {
  response.setHeader("content-type", "application/json; charset=utf-8");
  response.end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string, error: string): void {
  response.statusCode = status;
  if (code !== "") response.setHeader("x-error-code", code);
  response.setHeader("x-error-message", error);
  json(response, { error });
}
