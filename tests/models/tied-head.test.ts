import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openModel } from "#run/open-model";
import { type NamedTensor, writeTensors } from "#lib/checkpoint/index";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { readTensors } from "#tests/support/read-tensors";

test("a stored head of a tied model is taken where it repeats the embedding, else refused", async () => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-tied-"));
  try {
    await cp(join(packageRoot, "tests/fixtures/models/qwen2-tied"), directory, { recursive: true });
    const file = join(directory, "model.safetensors");
    const { tensors } = await readTensors(file);
    const embedding = tensors.get("model.embed_tokens.weight");
    assert.ok(embedding !== undefined);
    const write = (data: Float32Array): Promise<void> => {
      const head: NamedTensor = { ...embedding, name: "lm_head.weight", data };
      return writeTensors(file, [...tensors.values(), head]);
    };
    await write(embedding.data.slice());
    await (await openModel(directory)).close();

    const moved = embedding.data.slice();
    moved[moved.length - 1] = (moved.at(-1) as number) + 1;
    await write(moved);
    await assert.rejects(
      openModel(directory),
      (error) => isLockstepError(error) && error.code === "E_MODEL_UNSUPPORTED",
    );
  } finally {
    await rm(directory, { recursive: true });
  }
});
