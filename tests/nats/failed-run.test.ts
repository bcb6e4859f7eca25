import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { startNats } from "#tests/support/nats-server";
import { createTinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

test("a run that fails before it begins lets go of NATS", {
  timeout: 60_000,
  ...needs("natsServer"),
}, async (t) => {
  const nats = await startNats();
  t.after(() => nats.close());
  const job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ dataset: "gone.txt", nats_url: nats.settings.url },
  });
  t.after(() => job.remove());
  const cache = join(job.directory, "cache");
  const { code, stderr } = await lockstepCommand(["train", job.configFile, "--json-logs"], cache);
  assert.equal(code, 1);
  // What a command leaves open keeps its process for a while, which then says so.
  assert.doesNotMatch(stderr, /did not end/);
});
