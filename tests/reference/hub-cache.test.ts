import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { findModelDirectory } from "#run/model-directory";
import { importGguf, ModelWeights } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";
import { startHub } from "#tests/hub/support";
import { needsPeers, runPeers } from "#tests/support/peers";

// One cache for both programs: see test_hub_cache.py.

const id = "tiny/llama";

interface Report {
  readonly path: string;
  readonly sum: number;
  readonly ids: readonly number[];
}

async function sumOf(directory: string): Promise<number> {
  const weights = await ModelWeights.open(directory);
  let sum = 0;
  for (const name of weights.names()) {
    for (const value of await weights.readFloat32(name)) sum += value;
  }
  await weights.close();
  return sum;
}

test(
  "Python finds what was fetched here, and what Python fetched is found here",
  needsPeers(),
  async (t) => {
    const { server, directory } = await startHub(t);
    const source = join(directory, "source");
    await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), source);
    const files: Record<string, Buffer> = { "pytorch_model.bin": Buffer.alloc(3000) };
    for (const name of await readdir(source)) files[name] = await readFile(join(source, name));
    const { commit } = server.add(id, files);
    const expected = await sumOf(source);
    const ids = [
      ...(await (await loadTokenizer(source)).encode("hello there", { addSpecialTokens: true })),
    ];
    const online = { HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: join(directory, "ours") };
    const ours = await findModelDirectory(id, { env: online });
    const found = JSON.parse(
      await runPeers("test_hub_cache.py", ["find", online.HF_HUB_CACHE, id]),
    ) as Report;
    assert.equal(found.path, ours);
    assert.ok(Math.abs(found.sum - expected) < 1e-3 * Math.abs(expected));
    assert.deepEqual(found.ids, ids);

    const theirs = join(directory, "theirs");
    const fetched = JSON.parse(
      await runPeers("test_hub_cache.py", ["fetch", theirs, id, server.endpoint]),
    ) as Report;
    assert.deepEqual(fetched.ids, ids);
    server.log.length = 0;
    for (const [cache, hasPickle] of [
      ["snapshot", true],
      ["loaded", false],
    ] as const) {
      const env = { HF_ENDPOINT: server.endpoint, HF_HUB_CACHE: join(theirs, cache) };
      const place = await findModelDirectory(id, { env });
      assert.equal(place, join(theirs, cache, "models--tiny--llama/snapshots", commit));
      assert.equal((await readdir(place)).includes("pytorch_model.bin"), hasPickle);
      assert.equal(await sumOf(place), expected);
    }
    assert.deepEqual(server.log, [], "a whole cache was asked for");
  },
);
