import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { closedEndpoint } from "#tests/hub/support";
import { HubServer } from "#tests/support/hub-server";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { loraFixtureDirectory } from "#tests/support/lora-fixtures";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { tinyLlamaDirectory } from "#tests/support/tiny-llama";
import { prepareTinyRun } from "#tests/support/tiny-run";

let directory = "";
let server: HubServer;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-hub-commands-"));
  await prepareTinyRun(directory);
  server = await HubServer.start();
});
after(async () => {
  await server.close();
  await rm(directory, { recursive: true, force: true });
});

async function filesOf(source: string): Promise<Record<string, Buffer>> {
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(source)) files[name] = await readFile(join(source, name));
  return files;
}

/** A command with a hub's cache of its own. */
function lockstep(cache: string, args: readonly string[], more: Record<string, string> = {}) {
  const own = {
    HF_ENDPOINT: server.endpoint,
    HF_HOME: join(directory, cache),
    HF_HUB_OFFLINE: "0",
  };
  return lockstepCommand(args, join(directory, "lockstep"), undefined, { ...own, ...more });
}

const job = (): string => join(directory, "job.yaml");
const hashIn = (lines: readonly string[]): string =>
  lines.find((line) => line.startsWith("masters sha256 ")) ?? assert.fail(lines.join("\n"));
const short = ["--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no"];

test("training from an id, and again without the server, ends with the bits of a directory", async () => {
  server.add("tiny/llama", await filesOf(join(directory, "model")));
  const train = (name: string, model: string, more: Record<string, string> = {}) =>
    lockstep(
      "train",
      [
        ...["train-local", job(), ...short, "--model_name_or_path", model],
        ...["--output_dir", join(directory, name)],
      ],
      more,
    );
  const expected = await train("from-directory", join(directory, "model"));
  assert.equal(expected.code, 0, expected.stderr);
  assert.deepEqual(server.log, []);

  const fetched = await train("from-hub", "tiny/llama");
  assert.equal(fetched.code, 0, fetched.stderr);
  assert.equal(hashIn(fetched.lines), hashIn(expected.lines));
  assert.ok(fetched.lines.some((line) => line.startsWith("downloading tiny/llama: 100 % of ")));

  const numRequests = server.log.length;
  const offline = { HF_HUB_OFFLINE: "1", HF_ENDPOINT: await closedEndpoint() };
  const again = await train("offline", "tiny/llama", offline);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(hashIn(again.lines), hashIn(expected.lines));
  assert.equal(server.log.length, numRequests);
  const model = await readFile(join(directory, "offline/model.safetensors"));
  assert.deepEqual(model, await readFile(join(directory, "from-directory/model.safetensors")));

  const missing = await train("missing", "tiny/other", offline);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /^E_MODEL_NOT_FOUND: .*since HF_HUB_OFFLINE=1 forbids it/m);
});

test("a cluster's run from an id tells of the download, and keeps the id", async () => {
  server.add("tiny/cluster", await filesOf(join(directory, "model")));
  const output = join(directory, "cluster");
  const { code, stderr, of } = await lockstep("cluster-home", [
    ...["train", job(), ...short, "--json-logs", "--model_name_or_path", "tiny/cluster"],
    ...["--output_dir", output],
  ]);
  assert.equal(code, 0, stderr);
  const details = of("phase.changed").map(({ detail = "" }) => detail);
  assert.ok(details.includes(`asking ${server.endpoint} for tiny/cluster, revision main`));
  assert.ok(details.some((detail) => detail.startsWith("downloading tiny/cluster: 100 %")));
  const saved = await readFile(join(output, "lockstep.yaml"), "utf8");
  assert.match(saved, /^model_name_or_path: tiny\/cluster$/m);
  // A person who looks does not download.
  server.log.length = 0;
  const config = await lockstep("none", ["config", job(), "--model_name_or_path", "tiny/cluster"]);
  assert.equal(config.code, 0);
  assert.match(
    config.stderr,
    /warning: There is no model tiny\/cluster: .*was not asked .*a run asks it/,
  );
  assert.deepEqual(server.log, []);
});

/** Starts a process that finds a model, with a cache of its own. */
function find(id: string, cache: string): { child: ChildProcess; output: Promise<string> } {
  const script = join(packageRoot, "dist/tests/hub/finding-process.js");
  const own = {
    HF_ENDPOINT: server.endpoint,
    HF_HOME: join(directory, cache),
    HF_HUB_OFFLINE: "0",
  };
  const child = spawn(process.execPath, [script, id], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...own, LOCKSTEP_CACHE: join(directory, "lockstep") },
  });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  return { child, output: new Promise((resolve) => child.on("close", () => resolve(text))) };
}

test("a download whose process is killed is gone on with by the next", async () => {
  const files = await filesOf(tinyLlamaDirectory);
  const { content } =
    server.add("tiny/killed", files).files.get("model.safetensors") ?? assert.fail();
  const half = Math.floor(content.length / 2);
  const blobs = join(directory, "killed/hub/models--tiny--killed/blobs");
  const partial = join(blobs, `${createHash("sha256").update(content).digest("hex")}.incomplete`);
  server.cut = (name) =>
    name === "model.safetensors" ? { afterBytes: half, isStalled: true } : undefined;
  const { child, output } = find("tiny/killed", "killed");
  while ((await stat(partial).catch(() => undefined))?.size !== half) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill("SIGKILL");
  assert.doesNotMatch(await output, /^found/m);

  server.cut = () => undefined;
  server.log.length = 0;
  const { code, stderr, lines } = await lockstep("killed", [
    ...["verify-model", "tiny/killed", "--case", tinyLlamaDirectory],
  ]);
  assert.equal(code, 0, stderr);
  assert.match(lines.join("\n"), /PASSED/);
  assert.match(stderr, /going on with model\.safetensors at /);
  const [rest, ...more] = server.downloadsOf("model.safetensors");
  assert.deepEqual(more, []);
  assert.equal(rest?.range, `bytes=${half}-${content.length - 1}`);
  assert.equal(rest?.sentBytes, content.length - half);
});

test("of two processes that want one model each file is fetched by one", async () => {
  const files = await filesOf(tinyLlamaDirectory);
  const names = ["config.json", "generation_config.json", "model.safetensors"];
  server.add("tiny/twice", files);
  server.log.length = 0;
  const outputs = await Promise.all([1, 2, 3].map(() => find("tiny/twice", "twice").output));
  const places = outputs.map((output) => /^found (.*)$/m.exec(output)?.[1] ?? assert.fail(output));
  assert.equal(new Set(places).size, 1);
  for (const name of names) {
    const path = join(places[0] as string, name);
    assert.deepEqual(await readFile(path), files[name], name);
    assert.equal(server.downloadsOf(`/${name}`).length, 1, name);
  }
});

test("an adapter and its base model are both taken from the hub", async () => {
  server.add("tiny/adapter", await filesOf(loraFixtureDirectory("gpt2")));
  // As adapter_config.json names it, without an organisation.
  server.add("gpt2", await filesOf(modelFixtureDirectory("gpt2")));
  const fromHub = await lockstep("adapter", [
    "merge-adapter",
    "tiny/adapter",
    join(directory, "a"),
  ]);
  assert.equal(fromHub.code, 0, fromHub.stderr);
  const local = await lockstep("adapter", [
    ...["merge-adapter", loraFixtureDirectory("gpt2"), join(directory, "b")],
    ...["--base", modelFixtureDirectory("gpt2")],
  ]);
  assert.equal(local.code, 0, local.stderr);
  const [a, b] = [join(directory, "a"), join(directory, "b")];
  const weights = await ModelWeights.open(a);
  assert.ok(weights.names().length > 10);
  await weights.close();
  assert.deepEqual(
    await readFile(join(a, "model.safetensors")),
    await readFile(join(b, "model.safetensors")),
  );
});

test("generate takes an id and a revision, and names a hub that is not there within seconds", async () => {
  const { commit } = server.add("tiny/text", await filesOf(join(directory, "model")));
  const ask = (args: readonly string[], more: Record<string, string> = {}) =>
    lockstep(
      "text",
      ["generate", ...args, "--prompt", "a cat", "--max-new-tokens", "3", "--json"],
      more,
    );
  const there = await ask([join(directory, "model")]);
  const fetched = await ask(["tiny/text", "--revision", commit]);
  assert.equal(fetched.code, 0, fetched.stderr);
  assert.deepEqual(fetched.lines, there.lines);
  const startedAt = performance.now();
  const gone = await ask(["tiny/gone"], { HF_ENDPOINT: await closedEndpoint() });
  assert.equal(gone.code, 1);
  assert.match(
    gone.stderr,
    /^E_HUB_UNREACHABLE: tiny\/gone \(revision main\) at http:\/\/127\.0\.0\.1:\d+ could not be fetched: .*ECONNREFUSED/m,
  );
  assert.ok(performance.now() - startedAt < 60_000);
});
