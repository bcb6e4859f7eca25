import assert from "node:assert/strict";
import { test } from "node:test";
import { RemoteSave } from "#coordinator/reducer/remote-save";
import { type ErrorCode, LockstepError } from "#lib/core/errors/index";
import type { SavedTensors } from "#lib/core/saved-files";
import type { RangePeer, ShardCommand } from "#lib/wire/reducer-messages";
import { testLife } from "#tests/support/members";

const content: SavedTensors = {
  ...({ array: "masters", dtype: "float32", finiteAfterStep: 1 } as const),
  tensors: [{ tensor: 0, name: "a" }],
};
const file = { file: "/out/.checkpoint-1.tmp-1-0/model.safetensors" };
const object = { store: { bucket: "b", prefix: "" }, key: "checkpoint-1/model.safetensors" };
const saved = { sizeBytes: 1, sha256: "", pieces: "" };
const peerAt = (address: string): readonly RangePeer[] => [
  { shardIndex: 1, peer: { ...testLife, address, name: "shard/0", secret: "" } },
];

const errorOf = (code: "E_SHARD_COPY" | "E_CHECKPOINT_STORE" | "E_SHARD_LOST"): LockstepError => {
  const [reason, address] = ["gone", "one:1"];
  return code === "E_CHECKPOINT_STORE"
    ? new LockstepError(code, { place: "s3://b", problem: reason })
    : new LockstepError(code, { shardIndex: 0, address, reason });
};

/** @param outcomes of one call after the other */
function saveOf(outcomes: readonly (Parameters<typeof errorOf>[0] | "saved")[]) {
  const [asked, notes]: [ShardCommand[], string[]] = [[], []];
  const save = new RemoteSave({
    ...{ shardIndex: 0, address: "me:1", note: (text) => void notes.push(text) },
    call: async (command) => {
      const outcome = outcomes[asked.length];
      asked.push(command);
      if (outcome === undefined) assert.fail("asked again");
      if (outcome !== "saved") throw errorOf(outcome);
      return { kind: "saved", ...saved };
    },
  });
  const addresses = (): string[] =>
    asked.map((command) =>
      command.kind === "saveTensors" ? String(command.peers[0]?.peer.address) : "",
    );
  return { save, notes, addresses };
}

test("what a shard that is gone kept is fetched from the one that took its place", async () => {
  const { save, notes, addresses } = saveOf(["E_SHARD_COPY", "saved"]);
  const places = ["one:1", "two:1"];
  const peersNow = async (): Promise<readonly RangePeer[]> => peerAt(places.shift() ?? "");
  assert.deepEqual(await save.saveTensors(file, content, peersNow), saved);
  assert.deepEqual(addresses(), ["one:1", "two:1"]);
  assert.deepEqual(notes, []);
});

test("where nobody took its place the coordinator writes, and a store is asked again", async () => {
  const { save, notes } = saveOf(["E_SHARD_COPY", "saved", "E_CHECKPOINT_STORE"]);
  const peersNow = async (): Promise<readonly RangePeer[]> => peerAt("one:1");
  assert.equal(await save.saveTensors(object, content, peersNow), undefined);
  assert.match(notes.join(), /^shard 0 at me:1 cannot fetch what it saves/);
  // That has nothing to do with the store.
  assert.deepEqual(await save.saveTensors(object, content, peersNow), saved);
  // This has: it is not asked at once again.
  for (let i = 0; i < 2; i++) assert.equal(await save.saveState(object), undefined);
  assert.equal(notes.length, 2);
});

test("any other error is the save's", async () => {
  const code: ErrorCode = "E_SHARD_LOST";
  const { save, notes } = saveOf([code, code]);
  await assert.rejects(save.saveState(file), { code });
  await assert.rejects(
    save.saveTensors(file, content, async () => []),
    { code },
  );
  assert.deepEqual(notes, []);
});
