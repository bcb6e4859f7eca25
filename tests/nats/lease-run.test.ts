import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { after, before, test } from "node:test";
import { NatsLink } from "#lib/wire/nats/connection";
import { findRun } from "#lib/wire/nats/event-watch";
import { commandRun } from "#lib/wire/nats/run-commands";
import { CutWire } from "#tests/support/cut-wire";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { untilResumed } from "#tests/support/resumed-run";
import { startNats } from "#tests/support/nats-server";
import type { TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";
import { createJobOfTwo, takeOver } from "#tests/support/two-coordinators";

// Two coordinators that decide by a lease in NATS who leads.

const options = { timeout: 240_000, ...needs("natsServer") };

let job: TinyJob;
let expected: string;
let nats: Awaited<ReturnType<typeof startNats>>;
let link: NatsLink;
const running = new Set<ChildProcess>();

before(async () => {
  job = await createJobOfTwo();
  if (options.skip !== undefined) return;
  nats = await startNats();
  link = await NatsLink.open(nats.settings, { role: "submitter", name: "test", onNews: () => {} });
  expected = mastersOf(await runJob(job, "train", "undisturbed"));
});
after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await link?.close();
  await nats?.close();
  await job.remove();
});

// The kill alone is what tests/cli/standby.test.ts shows of files, and takes the same way here.
const faults =
  process.env["LOCKSTEP_ALL_FAULTS"] === undefined
    ? ["stopped", "cut-off"]
    : ["killed", "stopped", "cut-off"];
for (const fault of faults) {
  test(
    `a standby leads when the owner of the lease is ${fault}, and that one writes nothing more`,
    options,
    async (t) => {
      const wire = await CutWire.to(nats.servers[0]?.port ?? 0);
      t.after(() => wire.close());
      const urls = [`nats://127.0.0.1:${wire.port}`, nats.settings.url];
      let resumed: Promise<unknown> | undefined;
      const { tookMs, struck, first } = await takeOver({
        ...{ job, expected, running, name: fault, standsBy: /this one follows/ },
        withinMs: 60_000,
        args: (number) => ["--nats_url", urls[number] ?? "", "--nats_lease", fault],
        strike: async (child) => {
          if (fault === "cut-off") {
            // It lives and works, and would have made its last step before anybody follows.
            await commandRun(link, await findRun(link, undefined), "pause");
            wire.cut();
          } else child.kill(fault === "killed" ? "SIGKILL" : "SIGSTOP");
        },
        onFollowing: (event) => {
          // It stays paused, whoever leads.
          if (event.type === "phase.changed" && event.phase === "paused") {
            resumed ??= untilResumed(link, undefined);
          }
        },
      });
      await resumed;
      assert.equal(resumed !== undefined, fault === "cut-off");
      t.diagnostic(`took over after ${Math.round(tookMs)} ms`);
      if (fault === "stopped") struck.kill("SIGCONT");
      const { code, stderr } = await first;
      if (fault === "killed") return;
      assert.equal(code, 76, stderr);
      assert.match(stderr, fault === "cut-off" ? /E_LEASE_LOST/ : /E_LEASE_LOST|E_OUTPUT_DIR_LOST/);
    },
  );
}
