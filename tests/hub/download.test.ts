import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { mkdir, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { downloadSnapshot, findSnapshot, type HubSettings } from "#lib/hub/index";
import { failure, type HubCase, startHub, tinyRepository } from "#tests/hub/support";
import { gitBlobHash, hashOf } from "#tests/support/hub-server";

const model = { id: "tiny/llama", revision: "main" };
const wanted = [
  "chat_template.jinja",
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];

const fetchModel = (settings: HubSettings, details: string[] = []): Promise<string> =>
  downloadSnapshot(model, settings, (detail) => details.push(detail), []);

const sha256 = (content: Buffer): string => createHash("sha256").update(content).digest("hex");

async function assertWhole({ server }: HubCase, snapshot: string): Promise<void> {
  assert.deepEqual((await readdir(snapshot)).sort(), wanted);
  for (const name of wanted) {
    const { content } = server.repositories.get(model.id)?.files.get(name) ?? assert.fail(name);
    assert.equal(sha256(await readFile(join(snapshot, name))), sha256(content), name);
  }
}

test("a model is laid out as huggingface_hub lays it out, with the files that are needed", async (t) => {
  const hub = await startHub(t);
  const { commit, files } = hub.server.add(model.id, await tinyRepository());
  hub.server.pageSize = 3;
  const details: string[] = [];
  const snapshot = await fetchModel(hub.settings, details);

  const folder = join(hub.directory, "hub", "models--tiny--llama");
  assert.equal(snapshot, join(folder, "snapshots", commit));
  await assertWhole(hub, snapshot);
  assert.equal(await readFile(join(folder, "refs", "main"), "utf8"), commit);
  for (const name of wanted) {
    const hash = hashOf(files.get(name) ?? assert.fail(name));
    assert.equal(await readlink(join(snapshot, name)), `../../blobs/${hash}`);
  }
  assert.deepEqual((await readdir(join(folder, "blobs"))).length, wanted.length);
  assert.ok(existsSync(join(folder, ".no_exist", commit, "special_tokens_map.json")));
  for (const name of ["pytorch_model.bin", "model.gguf", "tf_model.h5", "README.md"]) {
    assert.deepEqual(hub.server.downloadsOf(name), [], name);
  }
  assert.match(details.at(-1) ?? "", /^downloading tiny\/llama: 100 % of /);
  assert.deepEqual(await findSnapshot(hub.settings.cacheDirectory, model), {
    ...{ directory: snapshot, commit, missing: [] },
  });
});

test("a download that breaks is taken up where it broke, by this process and by a later one", async (t) => {
  const hub = await startHub(t, { HF_HUB_DOWNLOAD_TIMEOUT: "1" });
  const { files } = hub.server.add(model.id, await tinyRepository());
  const { content } = files.get("model.safetensors") ?? assert.fail();
  const third = Math.floor(content.length / 3);
  const blobs = join(hub.directory, "hub", "models--tiny--llama", "blobs");
  const partial = join(blobs, `${sha256(content)}.incomplete`);
  const keptBytes = (): number => statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
  // It stalls after a third, as often as that is given up before it has arrived, and then breaks at once, each time.
  hub.server.cut = (name) => {
    if (name !== "model.safetensors") return undefined;
    return keptBytes() === 0 ? { afterBytes: third, isStalled: true } : { afterBytes: 0 };
  };
  assert.match(
    await failure(() => fetchModel(hub.settings)),
    /^E_HUB_UNREACHABLE: tiny\/llama \(revision main\) at http.* could not be fetched/,
  );
  const ranges = (): (string | undefined)[] =>
    hub.server.log
      .filter(({ host, path }) => host === "store" && path.endsWith("model.safetensors"))
      .map(({ range }) => range);
  assert.equal(ranges()[0], undefined);
  const kept = keptBytes();
  assert.ok(kept > 0 && kept <= third, `${kept} bytes`);
  const later = ranges().filter((range) => range !== undefined);
  assert.ok(later.length > 1);
  for (const range of later) assert.equal(range, `bytes=${kept}-${content.length - 1}`);
  const found = await findSnapshot(hub.settings.cacheDirectory, model);
  assert.equal(found, undefined, "a broken download looks whole");

  hub.server.cut = () => undefined;
  hub.server.log.length = 0;
  const details: string[] = [];
  const snapshot = await fetchModel(hub.settings, details);
  await assertWhole(hub, snapshot);
  const [rest, ...more] = hub.server.downloadsOf("model.safetensors");
  assert.deepEqual(more, []);
  assert.equal(rest?.range, `bytes=${kept}-${content.length - 1}`);
  assert.equal(rest?.sentBytes, content.length - kept);
  assert.deepEqual(
    hub.server.downloadsOf("tokenizer.json"),
    [],
    "what is there is not fetched again",
  );
  assert.ok(details.some((detail) => /going on with model\.safetensors at /.test(detail)));
  assert.ok(!existsSync(partial));
});

test("a server that ignores the range, and kept bytes of another file, end in the right file", async (t) => {
  const hub = await startHub(t);
  const { files } = hub.server.add(model.id, await tinyRepository());
  const { content } = files.get("model.safetensors") ?? assert.fail();
  const blobs = join(hub.directory, "hub", "models--tiny--llama", "blobs");
  await mkdir(blobs, { recursive: true });
  const partial = join(blobs, `${sha256(content)}.incomplete`);
  await writeFile(partial, Buffer.alloc(1000, 7));
  await assertWhole(hub, await fetchModel(hub.settings));
  assert.deepEqual(
    hub.server.downloadsOf("model.safetensors").map(({ range }) => range),
    [`bytes=1000-${content.length - 1}`, undefined],
  );

  const other = await startHub(t);
  other.server.add(model.id, await tinyRepository());
  other.server.hasRanges = false;
  const theirs = join(other.directory, "hub", "models--tiny--llama", "blobs");
  await mkdir(theirs, { recursive: true });
  await writeFile(join(theirs, `${sha256(content)}.incomplete`), content.subarray(0, 1000));
  await assertWhole(other, await fetchModel(other.settings));
});

for (const name of ["model.safetensors", "config.json"]) {
  test(`${name} with a wrong checksum is thrown away`, async (t) => {
    const hub = await startHub(t);
    hub.server.add(model.id, await tinyRepository());
    hub.server.falsify = (served, content) => {
      if (served !== name) return content;
      const wrong = Buffer.from(content);
      wrong[wrong.length - 2] = (wrong.at(-2) ?? 0) ^ 1;
      return wrong;
    };
    const message = await failure(() => fetchModel(hub.settings));
    assert.match(message, new RegExp(`^E_HUB_CHECKSUM: ${name} of tiny/llama from http`));
    assert.equal(await findSnapshot(hub.settings.cacheDirectory, model), undefined);
    const kept = await readdir(join(hub.directory, "hub", "models--tiny--llama", "blobs"));
    const { content } = hub.server.repositories.get(model.id)?.files.get(name) ?? assert.fail();
    for (const hash of [sha256(content), gitBlobHash(content)]) {
      assert.ok(!kept.some((file) => file.startsWith(hash)), "a false file is kept");
    }
  });
}

test("more bytes than were announced are not written", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, await tinyRepository());
  hub.server.falsify = (name, content) =>
    name === "model.safetensors" ? Buffer.concat([content, Buffer.alloc(1 << 20)]) : content;
  assert.match(
    await failure(() => fetchModel(hub.settings)),
    /^E_HUB_RESPONSE: .*model\.safetensors has more than its \d+ bytes/,
  );
});

test("names, hashes, sizes and commits that a server makes up are refused", async (t) => {
  const file = { type: "file", size: 5, oid: "a".repeat(40) };
  const entries: readonly [unknown, RegExp][] = [
    [{ ...file, path: "../../evil.json" }, /lists a file "\.\.\/\.\.\/evil\.json"/],
    [{ ...file, path: "/etc/cron.d/evil" }, /lists a file "\/etc/],
    [{ ...file, path: "a\\..\\b" }, /lists a file/],
    [{ ...file, path: "C:evil.json" }, /lists a file/],
    [{ ...file, path: 5 }, /lists a file 5/],
    [{ ...file, path: "vocab.json", oid: "../../../evil" }, /lists vocab\.json without a hash/],
    [
      { ...file, path: "vocab.json", lfs: { oid: "../evil", size: 5 } },
      /lists vocab\.json without a hash/,
    ],
    [{ ...file, path: "vocab.json", size: -1 }, /lists vocab\.json without a size/],
    [{ ...file, path: "vocab.json", size: 1e12 }, /vocab\.json has 1000000000000 bytes/],
    [{ ...file, path: "added_tokens.json", size: 1e9 }, /added_tokens\.json has 1000000000 bytes/],
  ];
  for (const [entry, expected] of entries) {
    const hub = await startHub(t);
    hub.server.add(model.id, await tinyRepository());
    hub.server.extraEntries = [entry];
    const message = await failure(() => fetchModel(hub.settings));
    assert.match(
      message,
      /^E_HUB_RESPONSE: What http.* answered about tiny\/llama \(revision main\)/,
    );
    assert.match(message, expected);
    assert.deepEqual(
      hub.server.log.filter(({ sentBytes }) => sentBytes > 0),
      [],
    );
    const written = await readdir(hub.directory, { recursive: true });
    assert.deepEqual(
      written.filter((path) => /evil|blobs/.test(path)),
      [],
    );
    assert.equal(await findSnapshot(hub.settings.cacheDirectory, model), undefined);
  }
  const hub = await startHub(t);
  hub.server.add(model.id, await tinyRepository()).commit = "../../../../evil";
  assert.match(await failure(() => fetchModel(hub.settings)), /^E_HUB_RESPONSE: .*names no commit/);
  const endless = await startHub(t);
  endless.server.add(model.id, await tinyRepository());
  endless.server.extraEntries = Array.from({ length: 30_000 }, (_, i) => ({
    ...file,
    path: `${i}`,
  }));
  assert.match(
    await failure(() => fetchModel(endless.settings)),
    /^E_HUB_RESPONSE: .*listing has more than 20000 entries/,
  );
});

test("a listing of empty pages without an end is given up", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, await tinyRepository());
  hub.server.pageSize = 0;
  assert.match(
    await failure(() => fetchModel(hub.settings)),
    /^E_HUB_RESPONSE: .*more than 100 pages/,
  );
});

test("shards are those that the index names, and an index may name only files of the repository", async (t) => {
  const tiny = await tinyRepository();
  const shard = tiny["model.safetensors"] as Buffer;
  delete tiny["model.safetensors"];
  const indexed = (weightMap: unknown): Record<string, Buffer | string> => ({
    ...tiny,
    "model-00001-of-00002.safetensors": shard,
    "model-00002-of-00002.safetensors": Buffer.concat([shard, shard]),
    "model-00003-of-00003.safetensors": shard,
    "model.safetensors.index.json": JSON.stringify({ weight_map: weightMap }),
  });
  const hub = await startHub(t);
  const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const { commit } = hub.server.add(model.id, indexed({ a: names[1], b: names[0], c: names[1] }));
  const snapshot = await fetchModel(hub.settings);
  const fetched = (await readdir(snapshot)).filter((name) => name.endsWith(".safetensors"));
  assert.deepEqual(fetched.sort(), names);
  const whole = { directory: snapshot, commit, missing: [] };
  assert.deepEqual(await findSnapshot(hub.settings.cacheDirectory, model), whole);
  // A shard whose content is gone is missing, though its link is there.
  const link = join(snapshot, names[1] as string);
  const blob = join(snapshot, await readlink(link));
  await rm(blob);
  const { missing } = (await findSnapshot(hub.settings.cacheDirectory, model)) ?? assert.fail();
  assert.deepEqual(missing, [names[1]]);

  for (const [weightMap, expected] of [
    [
      { a: "../../../evil.safetensors" },
      /E_WEIGHTS_INDEX: .*"\.\.\/\.\.\/\.\.\/evil\.safetensors" is not/,
    ],
    [{ a: "/tmp.safetensors" }, /E_WEIGHTS_INDEX: /],
    [{ a: "pytorch_model.bin" }, /E_WEIGHTS_INDEX: /],
    [{ a: 1 }, /E_WEIGHTS_INDEX: /],
    [{}, /E_WEIGHTS_INDEX: .*0 shards/],
    [
      { a: "absent.safetensors" },
      /E_HUB_RESPONSE: .*names absent\.safetensors, which is not there/,
    ],
  ] as const) {
    const other = await startHub(t);
    other.server.add(model.id, indexed(weightMap));
    assert.match(await failure(() => fetchModel(other.settings)), expected);
    assert.equal(await findSnapshot(other.settings.cacheDirectory, model), undefined);
  }
});

test("a repository without safetensors is refused by what it has", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, { "config.json": "{}", "pytorch_model.bin": "x", "model.q4.gguf": "x" });
  assert.match(
    await failure(() => fetchModel(hub.settings)),
    /^E_HUB_NO_SAFETENSORS: tiny\/llama \(revision main\) at .*: it has pytorch_model\.bin, model\.q4\.gguf, but neither model\.safetensors/,
  );
  hub.server.add(model.id, { "model.safetensors": "x" });
  assert.match(await failure(() => fetchModel(hub.settings)), /it has no config\.json/);
  hub.server.add(model.id, { "README.md": "x" });
  assert.match(await failure(() => fetchModel(hub.settings)), /none of its 1 files holds weights/);
  assert.equal(hub.server.log.filter(({ sentBytes }) => sentBytes > 0).length, 0);
});

test("a name of earlier days leads to the repository of today, under its own name in the cache", async (t) => {
  const hub = await startHub(t, { HF_TOKEN: "hf_secret" });
  const { commit } = hub.server.add("openai-community/gpt2", await tinyRepository());
  hub.server.aliases.set("gpt2", "openai-community/gpt2");
  const gpt2 = { id: "gpt2", revision: "main" };
  const snapshot = await downloadSnapshot(gpt2, hub.settings, () => {}, []);
  assert.equal(snapshot, join(hub.directory, "hub/models--gpt2/snapshots", commit));
  assert.deepEqual((await readdir(snapshot)).sort(), wanted);
});

test("an adapter's repository is whole without a model", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, {
    "adapter_config.json": "{}",
    "adapter_model.safetensors": Buffer.alloc(2000),
    "adapter_model.bin": Buffer.alloc(2000),
  });
  const snapshot = await fetchModel(hub.settings);
  const names = ["adapter_config.json", "adapter_model.safetensors"];
  assert.deepEqual((await readdir(snapshot)).sort(), names);
  assert.deepEqual((await findSnapshot(hub.settings.cacheDirectory, model))?.missing, []);
});

test("two downloads of one model at once send each byte once", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, await tinyRepository());
  const [first, second] = await Promise.all([fetchModel(hub.settings), fetchModel(hub.settings)]);
  assert.equal(first, second);
  await assertWhole(hub, first);
  for (const name of ["model.safetensors", "tokenizer.json"]) {
    assert.equal(hub.server.downloadsOf(name).length, 1, name);
  }
});

test("the token goes to the hub, and not to the store that it sends to", async (t) => {
  const hub = await startHub(t, { HF_TOKEN: "hf_secret" });
  hub.server.add(model.id, await tinyRepository());
  await fetchModel(hub.settings);
  const sent = new Map<string, Set<string | undefined>>([
    ["hub", new Set()],
    ["store", new Set()],
  ]);
  for (const { host, authorization } of hub.server.log) sent.get(host)?.add(authorization);
  assert.deepEqual([...(sent.get("hub") ?? [])], ["Bearer hf_secret"]);
  assert.deepEqual([...(sent.get("store") ?? [])], [undefined]);
});

test("what the hub refuses is told with the id, the revision, the address and the next step", async (t) => {
  const hub = await startHub(t, { HF_TOKEN: "hf_secret" });
  const { endpoint } = hub.server;
  assert.match(
    await failure(() => downloadSnapshot(model, hub.settings, () => {}, ["/looked/here"])),
    /^E_MODEL_NOT_FOUND: There is no model tiny\/llama: looked for a directory at \/looked\/here; http.* knows no such model for this token \(revision main;/,
  );
  const repository = hub.server.add(model.id, await tinyRepository());
  const dev = { ...model, revision: "dev" };
  assert.equal(
    await failure(() => downloadSnapshot(dev, hub.settings, () => {}, [])),
    `E_HUB_REVISION: tiny/llama at ${endpoint} has no revision dev.`,
  );
  repository.refusal = { status: 403, code: "GatedRepo" };
  const gated = await failure(() => fetchModel(hub.settings));
  assert.match(
    gated,
    /^E_HUB_ACCESS: tiny\/llama \(revision main\) at http.*: it is gated, so each reader/,
  );
  assert.ok(gated.includes(`${endpoint}/tiny/llama`) && !gated.includes("hf_secret"));
  repository.refusal = { status: 401, code: "" };
  assert.match(await failure(() => fetchModel(hub.settings)), /^E_HUB_ACCESS: .*was not accepted/);
  repository.refusal = { status: 503, code: "" };
  assert.match(await failure(() => fetchModel(hub.settings)), /^E_HUB_UNREACHABLE: .*answered 503/);
  await hub.server.close();
  const startedAt = performance.now();
  assert.match(
    await failure(() => downloadSnapshot(model, hub.settings, () => {}, ["/looked/here"])),
    /^E_HUB_UNREACHABLE: .*ECONNREFUSED.*It is not on this machine either: looked at \/looked\/here/,
  );
  assert.ok(performance.now() - startedAt < 20_000);
});

test("a server that says nothing is given up in time", async (t) => {
  const hub = await startHub(t, { HF_HUB_ETAG_TIMEOUT: "0.3", HF_HUB_DOWNLOAD_TIMEOUT: "0.3" });
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    silent.closeAllConnections();
    silent.close();
  });
  const { port } = silent.address() as { port: number };
  const settings = { ...hub.settings, endpoint: `http://127.0.0.1:${port}` };
  assert.match(
    await failure(() => fetchModel(settings)),
    /^E_HUB_UNREACHABLE: .*did not answer in time/,
  );
});

test("a cache that cannot be written is named", async (t) => {
  const hub = await startHub(t);
  hub.server.add(model.id, await tinyRepository());
  await writeFile(join(hub.directory, "hub"), "a file");
  assert.match(
    await failure(() => fetchModel(hub.settings)),
    /^E_HUB_CACHE: The hub's cache .*models--tiny--llama cannot be written: /,
  );
});
