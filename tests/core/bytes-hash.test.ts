import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { bytesSha256 } from "#lib/core/bytes-hash";

test("as many bytes are hashed as a shard keeps", () => {
  const few = Uint8Array.from({ length: 1000 }, (_, i) => i);
  const sha256 = createHash("sha256").update(few.subarray(3)).digest("hex");
  assert.equal(bytesSha256(few.subarray(3)), sha256);
  // What nobody has touched takes no memory. A shard of 179 million parameters keeps more with AdamW.
  const many = new Uint8Array(new SharedArrayBuffer(2 ** 31 + 7));
  const hash = createHash("sha256");
  for (let at = 0; at < 2; at++) hash.update(Buffer.alloc(2 ** 30));
  assert.equal(bytesSha256(many), hash.update(Buffer.alloc(7)).digest("hex"));
});
