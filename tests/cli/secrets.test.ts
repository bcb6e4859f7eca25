import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { TestAuthority } from "#tests/support/certificates";
import { descendantsOf } from "#tests/support/processes";

// Whole runs in real processes, with an engine without TensorFlow.

const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
const joinToken = "a-join-token";
const limit = { timeout: 240_000 };
let job: CaseJob;
let authority: TestAuthority;
let configFile = "";

before(async () => {
  authority = await TestAuthority.create();
  job = await createCaseJob("10-sigterm-to-every-process");
  await writeFile(job.file("join"), `${joinToken}\n`, { mode: 0o644 });
  await writeFile(job.file("http"), "0123456789abcdef", { mode: 0o600 });
  await writeFile(job.file("empty"), "\n");
  configFile = await job.writeJob({
    ...{ engine_module: engine, max_steps: 4, reducer_shards: 1 },
    ...{ join_token_file: job.file("join"), metrics_port: 0 },
  });
});

after(async () => {
  await job.remove();
  await authority.remove();
});

test(
  "a run with mutual TLS, tokens and HTTPS ends as any other; its logs have no secret",
  limit,
  async () => {
    const { cert, key } = await authority.issue("coordinator");
    const output = job.file("with-tls");
    const { code, of, lines, stderr } = await job.lockstep([
      ...["train", configFile, "--json-logs", "--output_dir", output],
      ...["--tls_ca_file", authority.caFile, "--tls_cert_file", cert, "--tls_key_file", key],
      ...["--http_tls_cert_file", cert, "--http_tls_key_file", key],
      ...["--http_token_file", job.file("http")],
    ]);
    assert.equal(code, 0, stderr);
    const notes = of("note").map(({ text }) => text);
    assert.ok(notes.some((text) => /^Dashboard https:\/\/127\.0\.0\.1:\d+\/ /.test(text)));
    assert.ok(notes.some((text) => /^warning: the join token in \S+ has 12 characters/.test(text)));
    assert.ok(
      notes.some((text) =>
        text.startsWith("warning: every user of this machine has access to the join"),
      ),
    );
    const logs = join(output, "logs");
    const written = await Promise.all(
      (await readdir(logs)).map(async (name) => readFile(join(logs, name), "utf8")),
    );
    assert.ok(written.length > 0);
    for (const text of [...written, lines.join("\n"), stderr]) {
      assert.ok(!text.includes(joinToken) && !text.includes("0123456789abcdef"));
      assert.ok(!text.includes("PRIVATE KEY"));
    }
  },
);

test(
  "what would go over the network in clear text, or protect nothing, is refused before the run",
  limit,
  async () => {
    for (const [args, problem] of [
      [["--join_token_file", job.file("empty")], /E_TOKEN_INVALID.*join token.*the file is empty/s],
      [["--http_token_file", job.file("empty")], /E_TOKEN_INVALID.*HTTP token.*the file is empty/s],
      [
        ["--metrics_host", "0.0.0.0", "--http_token_file", job.file("http")],
        /E_INSECURE_HTTP.*needs TLS \(http_tls_cert_file/s,
      ],
      [["--advertise_host", "192.0.2.1"], /E_INSECURE_CONNECT.*192\.0\.2\.1:/s],
      [
        ["--http_tls_cert_file", job.file("http")],
        /E_CONFIG_CONFLICT.*a certificate needs its key/s,
      ],
    ] as const) {
      const { code, stderr } = await job.lockstep(["train", configFile, ...args]);
      assert.notEqual(code, 0);
      assert.match(stderr, problem);
    }
  },
);

test("a run that may be insecure has workers that may", limit, async () => {
  let flags: string[] = [];
  const args = ["train", configFile, "--json-logs", "--insecure", "--output_dir", job.file("open")];
  const { code } = await job.lockstep(args, ({ type }, child) => {
    if (type !== "worker.joined" || child.pid === undefined || flags.length > 0) return;
    flags = descendantsOf(child.pid).flatMap((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0"),
    );
  });
  assert.equal(code, 0);
  assert.ok(flags.includes("--insecure") && flags.includes("--join-token-file"), flags.join(" "));
});
