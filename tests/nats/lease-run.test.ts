import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { NatsLink } from "#lib/wire/nats/connection";
import { findRun } from "#lib/wire/nats/event-watch";
import { commandRun } from "#lib/wire/nats/run-commands";
import { CutWire } from "#tests/support/cut-wire";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { startNats } from "#tests/support/nats-server";
import { freePorts } from "#tests/support/processes";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// Two coordinators that decide by a lease in NATS who leads.

const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
/** What a standby takes at most where a processor is free is 10 s; here others run beside it. */
const takeoverMs = 30_000;
const options = { timeout: 240_000, ...needs("natsServer") };

let job: TinyJob;
let expected: string;
let nats: Awaited<ReturnType<typeof startNats>>;
let link: NatsLink;
const running = new Set<ChildProcess>();

before(async () => {
  job = await createTinyJob({
    ...{ engine_module: engine, max_steps: 30, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "steps", save_steps: 4, logging_steps: 10, eval_on_start: false },
  });
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

const lockstep = (
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> => lockstepCommand(args, join(job.directory, "cache"), onEvent);

const coordinator = (
  name: string,
  at: { readonly listen: string; readonly url: string },
  onEvent: NonNullable<Parameters<typeof lockstepCommand>[2]>,
): Promise<CommandOutcome> =>
  lockstep(
    [
      ...["coordinator", job.configFile, "--json-logs", "--standby", "--listen", at.listen],
      ...["--metrics_port", "null", "--output_dir", join(job.directory, name)],
      ...["--nats_url", at.url, "--nats_lease", name],
    ],
    (event, child) => {
      running.add(child);
      onEvent(event, child);
    },
  );

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
      const url = `nats://127.0.0.1:${wire.port}`;
      const addresses = await Promise.all(
        [1, 2].map(async () => `127.0.0.1:${await freePorts(3)}`),
      );
      const [one = "", other = ""] = addresses;
      let victim: ChildProcess | undefined;
      let [struckAtMs, tookMs] = [0, 0];
      let isSaved = false;
      let standsBy = (): void => {};
      const standing = new Promise<void>((resolve) => {
        standsBy = resolve;
      });
      let leads = (): void => {};
      const leading = new Promise<void>((resolve) => {
        leads = resolve;
      });
      const first = coordinator(fault, { listen: one, url }, (event, child) => {
        if (event.type === "phase.changed") leads();
        if (event.type === "checkpoint.saved") isSaved = true;
        if (event.type !== "step.completed" || !isSaved || victim !== undefined) return;
        victim = child;
        void standing.then(async () => {
          if (fault === "cut-off") {
            // It lives and works, and would have made its last step before anybody follows.
            await commandRun(link, await findRun(link, undefined), "pause");
            wire.cut();
          } else child.kill(fault === "killed" ? "SIGKILL" : "SIGSTOP");
          struckAtMs = performance.now();
        });
      });
      await leading;
      const second = coordinator(fault, { listen: other, url: nats.settings.url }, (event) => {
        if (event.type === "note" && /this one follows/.test(event.text)) standsBy();
        if (event.type === "run.started" && tookMs === 0) tookMs = performance.now() - struckAtMs;
      });
      await standing;
      const workers = [1, 2].map(() =>
        lockstep([
          ...["worker", "--use-cpu", "--metrics-port", "null", "--engine-module", engine],
          ...["--coordinator", addresses.join(",")],
        ]),
      );
      const took = await second;
      assert.equal(mastersOf(took), expected);
      assert.ok(tookMs > 0 && tookMs < takeoverMs, `took over after ${Math.round(tookMs)} ms`);
      assert.ok((took.of("step.completed")[0]?.step ?? 0) > 1, "it began anew");
      for (const { code, stderr } of await Promise.all(workers)) assert.equal(code, 0, stderr);
      t.diagnostic(`took over after ${Math.round(tookMs)} ms`);
      if (fault === "stopped") victim?.kill("SIGCONT");
      const { code, stderr } = await first;
      wire.close();
      if (fault === "killed") return;
      assert.equal(code, 76, stderr);
      assert.match(stderr, fault === "cut-off" ? /E_LEASE_LOST/ : /E_LEASE_LOST|E_OUTPUT_DIR_LOST/);
    },
  );
}
