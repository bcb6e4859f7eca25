import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { findModelDirectory } from "#run/model-directory";
import { hubSettings, isHubId } from "#lib/hub/index";
import { failure, startHub, tinyRepository } from "#tests/hub/support";

const id = "tiny/llama";

test("a path, a name in models/, a snapshot in the cache, the hub: the first that is there", async (t) => {
  const { server, directory } = await startHub(t);
  const env = { HF_ENDPOINT: server.endpoint, HF_HOME: directory, LOCKSTEP_CACHE: directory };
  const find = (search: { revision?: string } = {}): Promise<string> =>
    findModelDirectory(id, { env, ...search });
  const { commit } = server.add(id, await tinyRepository());
  const snapshot = join(directory, "hub/models--tiny--llama/snapshots", commit);
  assert.equal(await find(), snapshot);
  const numRequests = server.log.length;
  assert.ok(numRequests > 0);
  assert.equal(await find(), snapshot);
  assert.equal(await find({ revision: commit }), snapshot);
  assert.equal(server.log.length, numRequests, "what is in the cache is not asked for");
  assert.match(await failure(() => find({ revision: "dev" })), /^E_HUB_REVISION: /);

  const own = join(directory, "models", id);
  await mkdir(own, { recursive: true });
  assert.equal(await find(), own);
  // A revision that was asked for is not dropped.
  assert.match(
    await failure(() => find({ revision: commit })),
    /^E_CONFIG_CONFLICT: The values of model_name_or_path and model_revision/,
  );
  assert.equal(await findModelDirectory(directory, { env }), directory);
});

test("every path that a message names is one at which a model is found", async (t) => {
  const { server, directory } = await startHub(t);
  const env = {
    ...{ HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: join(directory, "theirs") },
    ...{ LOCKSTEP_CACHE: join(directory, "ours"), HF_HUB_OFFLINE: "1" },
  };
  const before = process.cwd();
  process.chdir(directory);
  t.after(() => process.chdir(before));
  const find = (): Promise<string> => findModelDirectory(id, { env });
  const message = await failure(find);
  assert.match(
    message,
    /^E_MODEL_NOT_FOUND: .*http:\/\/127\.0\.0\.1:\d+ was not asked for revision main, since HF_HUB_OFFLINE=1 forbids it/,
  );
  const [, list = ""] = /at (\/.*?); http/.exec(message) ?? [];
  const looked = list.split(" and ");
  assert.equal(looked.length, 3);
  for (const path of looked) {
    const isCache = path.includes("models--");
    const place = isCache ? join(path, "snapshots", "a".repeat(40)) : path;
    await mkdir(place, { recursive: true });
    if (isCache) {
      await mkdir(join(path, "refs"));
      await writeFile(join(path, "refs", "main"), "a".repeat(40));
      assert.match(
        await failure(find),
        /lacks config\.json, tokenizer\.json, model\.safetensors\)/,
      );
      for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
        await writeFile(join(place, name), "{}");
      }
    }
    assert.equal(await find(), place);
    await rm(path, { recursive: true });
  }
  assert.deepEqual(server.log, []);
});

test("what has not the shape of an id is not asked for, and cannot leave a directory", async (t) => {
  const { server, directory } = await startHub(t);
  const env = { HF_ENDPOINT: server.endpoint, HF_HOME: directory, LOCKSTEP_CACHE: directory };
  for (const name of [
    ...["../etc", "a/../b", "/no/such", "./model", "a/b/c", "a//b", "a--b/c", "models--a--b"],
    ...[".hidden/x", "a/.b", "-a/b", "a/b.git", "a b", "ä/b", "a\\b", "a/b/", "x".repeat(97)],
  ]) {
    assert.equal(isHubId(name), false, name);
    assert.match(
      await failure(() => findModelDirectory(name, { env })),
      /^E_MODEL_NOT_FOUND: .*; the hub was not asked, whose models are called/,
      name,
    );
  }
  for (const name of [
    "gpt2",
    "a/b",
    "Qwen/Qwen2.5-0.5B",
    "HuggingFaceTB/SmolLM2-135M",
    "a_b/c.d-e",
  ]) {
    assert.equal(isHubId(name), true, name);
  }
  for (const revision of [
    "../../x",
    "a/../b",
    "/x",
    "a//b",
    "a b",
    "..",
    "a/",
    "x".repeat(300),
    "",
  ]) {
    assert.match(
      await failure(() => findModelDirectory("a/b", { env, revision })),
      /^E_CONFIG_INVALID: model_revision must be a branch, a tag or a commit/,
      revision,
    );
  }
  await writeFile(join(directory, "file"), "");
  assert.match(
    await failure(() => findModelDirectory(join(directory, "file"), { env })),
    /^E_MODEL_NOT_FOUND: .*; a file is there, and a model is a directory/,
  );
  assert.deepEqual(server.log, []);
});

test("a name that is nearly one of a model is told, whatever became of the search", async (t) => {
  const { server, directory } = await startHub(t);
  const env = { HF_ENDPOINT: server.endpoint, HF_HOME: directory, LOCKSTEP_CACHE: directory };
  const models = [
    "models/Tiny-Llama",
    "models/lab/small-model",
    "hub/models--other--gemma-2b",
    "own",
  ];
  for (const model of models) await mkdir(join(directory, model), { recursive: true });
  const nearOf = async (name: string, more: object = {}): Promise<string | undefined> =>
    / Did you mean (.*)\?$/.exec(
      (await failure(() => findModelDirectory(name, { env: { ...env, ...more } }))) ?? "",
    )?.[1];
  assert.equal(await nearOf("Tiny-Lama"), "Tiny-Llama");
  assert.equal(await nearOf("lab/smal-model"), "lab/small-model");
  assert.equal(await nearOf("other/gema-2b", { HF_HUB_OFFLINE: "1" }), "other/gemma-2b");
  assert.equal(await nearOf("SmolLM2-135M-Instrct"), "SmolLM2-135M-Instruct");
  assert.equal(await nearOf(join(directory, "owm")), join(directory, "own"));
  assert.equal(await nearOf("quite-another"), undefined);
});

test("of a model whose weights are not needed the other files are fetched, and then the weights", async (t) => {
  const { server, directory } = await startHub(t);
  const env = { HF_ENDPOINT: server.endpoint, HF_HOME: directory, LOCKSTEP_CACHE: directory };
  server.add(id, await tinyRepository());
  const find = (weights: boolean): Promise<string> => findModelDirectory(id, { env, weights });
  const snapshot = await find(false);
  for (const name of ["config.json", "tokenizer.json", "chat_template.jinja"]) {
    assert.ok(existsSync(join(snapshot, name)), name);
  }
  assert.deepEqual(server.downloadsOf("model.safetensors"), []);
  const numRequests = server.log.length;
  assert.equal(await find(false), snapshot);
  assert.equal(server.log.length, numRequests, "what is in the cache is not asked for");
  // For a run it is no whole model.
  assert.equal(await find(true), snapshot);
  assert.equal(server.downloadsOf("model.safetensors").length, 1);
  assert.equal(server.downloadsOf("tokenizer.json").length, 1);
  assert.ok(existsSync(join(snapshot, "model.safetensors")));
});

test("an interrupted snapshot of another program is completed", async (t) => {
  const { server, directory } = await startHub(t);
  const env = { HF_ENDPOINT: server.endpoint, HF_HOME: directory };
  const { commit } = server.add(id, await tinyRepository());
  const folder = join(directory, "hub/models--tiny--llama");
  const snapshot = join(folder, "snapshots", commit);
  for (const part of ["refs", "trees"]) await mkdir(join(folder, part), { recursive: true });
  await mkdir(snapshot, { recursive: true });
  await writeFile(join(folder, "refs/main"), commit);
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    await writeFile(
      join(snapshot, name),
      server.repositories.get(id)?.files.get(name)?.content ?? "",
    );
  }
  // huggingface_hub's own listing says that a template is missing.
  const files = { "chat_template.jinja": {}, "config.json": {}, "pytorch_model.bin": {} };
  const tree = JSON.stringify({ format_version: 1, files });
  await writeFile(join(folder, "trees", `${commit}.json`), tree);
  assert.match(
    await failure(() => findModelDirectory(id, { env: { ...env, HF_HUB_OFFLINE: "1" } })),
    /lacks chat_template\.jinja\)/,
  );
  assert.equal(await findModelDirectory(id, { env }), snapshot);
  assert.equal(
    await findModelDirectory(id, { env: { ...env, TRANSFORMERS_OFFLINE: "yes" } }),
    snapshot,
  );
});

test("variables have the meaning that they have in huggingface_hub", () => {
  const cacheOf = (env: Record<string, string>): string => hubSettings(env).cacheDirectory;
  assert.equal(cacheOf({}), join(homedir(), ".cache/huggingface/hub"));
  assert.equal(cacheOf({ XDG_CACHE_HOME: "/x" }), "/x/huggingface/hub");
  assert.equal(cacheOf({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" }), "/h/hub");
  assert.equal(cacheOf({ HF_HOME: "~/h" }), join(homedir(), "h/hub"));
  assert.equal(cacheOf({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
  assert.equal(cacheOf({ HF_HUB_CACHE: "$A/${B}/c", A: "/a", B: "b", HF_HOME: "/h" }), "/a/b/c");
  assert.equal(hubSettings({}).endpoint, "https://huggingface.co");
  assert.equal(
    hubSettings({ HF_ENDPOINT: "https://hub.example/" }).endpoint,
    "https://hub.example",
  );
  for (const off of ["1", "ON", "yes", "True"]) {
    assert.equal(hubSettings({ HF_HUB_OFFLINE: off }).offline, `HF_HUB_OFFLINE=${off}`);
  }
  assert.equal(hubSettings({ HF_HUB_OFFLINE: "0", TRANSFORMERS_OFFLINE: "1" }).offline, undefined);
});

test("a token comes from hub_token, HF_TOKEN or the file of a login, and no message shows it", async (t) => {
  const { directory } = await startHub(t);
  const env = { HF_HOME: directory };
  const tokenOf = (more: Record<string, string>, own?: string): string | undefined =>
    hubSettings({ ...env, ...more }, own).token;
  assert.equal(tokenOf({}), undefined);
  await writeFile(join(directory, "token"), "hf_file\n");
  assert.equal(tokenOf({}), "hf_file");
  assert.equal(tokenOf({ HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }), undefined);
  assert.equal(tokenOf({ HF_TOKEN: " hf_env\n" }), "hf_env");
  assert.equal(tokenOf({ HF_TOKEN: "hf_env" }, "hf_own"), "hf_own");
  const broken = await failure(async () => tokenOf({ HF_TOKEN: "hf_se\ncret" }));
  assert.match(broken, /^E_HUB_TOKEN: .*that of HF_TOKEN has characters that cannot be sent/);
  assert.ok(!broken.includes("cret"));
  for (const endpoint of ["ftp://x", "huggingface.co", "https://me:hf_secret@hub.example"]) {
    const message = await failure(async () => hubSettings({ HF_ENDPOINT: endpoint }));
    assert.match(message, /^E_CONFIG_INVALID: HF_ENDPOINT must be a URL/);
    assert.ok(!message.includes("hf_secret"));
  }
});
