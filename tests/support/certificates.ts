import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runProgram } from "./run-program.js";

/** An authority of its own, and certificates of it, in a directory that `remove` takes away. */
export class TestAuthority {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<TestAuthority> {
    const authority = new TestAuthority(await mkdtemp(join(tmpdir(), "lockstep-tls-")));
    await authority.#openssl(
      ...["req", "-x509", ...keyArguments, "-days", "2", "-subj", "/CN=authority"],
      ...["-keyout", "ca.key", "-out", "ca.crt"],
    );
    return authority;
  }

  get caFile(): string {
    return join(this.directory, "ca.crt");
  }

  /**
   * @param name a subject and a DNS name
   * @returns files of a new key and certificate, which is for both sides of a connection
   */
  async issue(name: string): Promise<{ readonly cert: string; readonly key: string }> {
    const stem = `${name}-${Math.random().toString(36).slice(2)}`;
    const at = (extension: string): string => join(this.directory, `${stem}.${extension}`);
    await this.#openssl(
      ...["req", ...keyArguments, "-subj", `/CN=${name}`, "-keyout", at("key"), "-out", at("csr")],
    );
    await writeFile(at("ext"), `subjectAltName=DNS:${name},DNS:localhost,IP:127.0.0.1\n`);
    await this.#openssl(
      ...["x509", "-req", "-in", at("csr"), "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"],
      ...["-set_serial", String(Math.floor(Math.random() * 1e9)), "-extfile", at("ext")],
      ...["-out", at("crt")],
    );
    return { cert: at("crt"), key: at("key") };
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  async #openssl(...args: readonly string[]): Promise<void> {
    const { code, stderr } = await runProgram("openssl", [...args], { cwd: this.directory });
    assert.equal(code, 0, stderr);
  }
}

const keyArguments = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** A directory of files that changes at once, by a link, as a mounted secret of Kubernetes does. */
export class MountedSecret {
  readonly directory: string;
  #version = 0;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** @param files their names and contents */
  async write(files: Readonly<Record<string, string | Buffer>>): Promise<void> {
    this.#version += 1;
    const data = `..${this.#version}`;
    await mkdir(join(this.directory, data), { recursive: true });
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(this.directory, data, name), content, { mode: 0o600 });
    }
    await symlink(data, join(this.directory, "..new"));
    await rename(join(this.directory, "..new"), join(this.directory, "..data"));
    if (this.#version > 1) return;
    for (const name of Object.keys(files)) {
      await symlink(join("..data", name), join(this.directory, name));
    }
  }

  file(name: string): string {
    return join(this.directory, name);
  }
}
