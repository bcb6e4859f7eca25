import assert from "node:assert/strict";
import { test } from "node:test";
import { flagsOf, showsSecret } from "#cli/agent-flags";
import type { Job } from "#lib/queue/job";
import type { NatsSettings } from "#lib/wire/nats/connection";

const settings = (more: Partial<NatsSettings> = {}): NatsSettings => ({
  ...{ url: "nats://127.0.0.1:4222", credentialsFile: null, tokenFile: null, tlsCaFile: null },
  ...{ tlsCertFile: null, tlsKeyFile: null, insecure: false },
  ...more,
});
const job = (config: string, flags: readonly string[] = []): Job =>
  ({ config, flags }) as unknown as Job;
const urlsOf = (flags: readonly string[]): readonly string[] =>
  flags.filter((flag) => flag.startsWith("--nats_url"));

test("a run publishes where its job is queued, unless the job or the agent says where", () => {
  const at = settings();
  const own = [`--nats_url=${at.url}`];
  for (const config of [
    "max_steps: 1\n# nats_url: nats://elsewhere\n",
    "run_name: nats_url\n",
    "max_steps: 1 # not nats_url: x\n",
  ]) {
    assert.deepEqual(urlsOf(flagsOf(at, [])(job(config))), own, config);
  }
  for (const config of ["nats_url: nats://elsewhere\n", '{"nats_url": null}', "? nats_url\n"]) {
    assert.deepEqual(urlsOf(flagsOf(at, [])(job(config))), [], config);
  }
  assert.deepEqual(urlsOf(flagsOf(at, [])(job("", ["--nats-url=nats://x"]))), []);
  const given = ["--nats_url=nats://y"];
  assert.deepEqual(urlsOf(flagsOf(at, given)(job(""))), given);
  assert.deepEqual(urlsOf(flagsOf(undefined, [])(job(""))), []);
});

test("what an agent may show in clear text its runs may not, unless they are told so", () => {
  const clear = settings({ url: "nats://far:4222", credentialsFile: "/c", insecure: true });
  assert.ok(showsSecret(clear, []));
  assert.deepEqual(urlsOf(flagsOf(clear, [])(job(""))), []);
  const insecure = flagsOf(clear, ["--insecure"])(job(""));
  assert.deepEqual(urlsOf(insecure), ["--nats_url=nats://far:4222"]);
  assert.equal(insecure.filter((flag) => flag === "--insecure").length, 1);
  for (const at of [
    settings({ credentialsFile: "/c", insecure: true }),
    settings({ url: "tls://far", credentialsFile: "/c", insecure: true }),
    settings({ url: "nats://far", insecure: true }),
  ]) {
    const flags = flagsOf(at, [])(job(""));
    assert.equal(urlsOf(flags).length, 1);
    assert.ok(!flags.includes("--insecure"));
  }
});
