import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { NatsError } from "nats";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { NatsLink } from "#lib/wire/nats/connection";
import { eventStream } from "#lib/wire/nats/event-stream";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { startNats } from "#tests/support/nats-server";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// A cluster of three servers whose leader is killed while a run publishes and somebody watches.

let job: TinyJob;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
    ...{ max_steps: 150, logging_steps: 10, sample_prompt: null },
    ...{ eval_strategy: "steps", eval_steps: 50, save_strategy: "no", workers: 2 },
  });
});
after(() => job.remove());

/** So slow that a watcher is there, and a server dead, long before the end. */
const paced = { LOCKSTEP_TEST_BATCH_MS: "40" };

/** `lockstep` with the events of its lines of JSON. */
const lockstep = (args: readonly string[], onEvent?: (event: LockstepEvent) => void) =>
  lockstepCommand(args, join(job.directory, "cache"), onEvent, paced);

/** Events as JSON has them. */
type Line = Readonly<Record<string, unknown>>;
const linesOf = ({ events }: CommandOutcome): Line[] => events as unknown as Line[];

/** What happened, without who tells it and when. */
const facts = ({ runId: _run, epoch: _epoch, sequence: _sequence, time: _time, ...event }: Line) =>
  event;

test(
  "the leader of three servers is killed in mid-run: the run ends, and who comes late sees every event once, in order",
  needs("natsServer"),
  async (t) => {
    const nats = await startNats({ count: 3 });
    t.after(() => nats.close());
    const { url } = nats.settings;
    const link = await NatsLink.open(nats.settings, {
      role: "coordinator",
      name: "test",
      onNews: () => {},
    });
    t.after(() => link.close());
    /** While one is elected nobody says which. */
    const leaderOf = async (): Promise<string> => {
      for (;;) {
        try {
          const { cluster, config } = await (await link.manager()).streams.info(eventStream);
          assert.equal(config.num_replicas, 3);
          if (cluster?.leader !== undefined) return cluster.leader;
        } catch (error) {
          if (!(error instanceof NatsError)) throw error;
        }
        await delay(100);
      }
    };
    let isOver = false;
    const kill = async (): Promise<string> => {
      const leader = await leaderOf();
      assert.equal(isOver, false, "the run was over before its leader could be killed");
      const server = nats.servers.find(({ name }) => name === leader);
      assert.ok(server !== undefined, leader);
      await server.stop("SIGKILL");
      return leader;
    };
    let killed: Promise<string> | undefined;
    let early: Promise<CommandOutcome> | undefined;
    const watch = ["watch", "--json", "--nats-url", url];
    const output = join(job.directory, "out");
    const ended = await lockstep(
      ["train", job.configFile, "--output_dir", output, "--nats_url", url, "--json-logs"],
      (event) => {
        if (event.type === "run.completed") isOver = true;
        if (event.type !== "step.completed" || event.step < 10) return;
        early ??= lockstep(watch, (seen) => {
          if (seen.type !== "step.completed" || seen.step < 30 || killed !== undefined) return;
          killed = kill();
          killed.catch(() => {});
        });
      },
    );
    assert.equal(ended.code, 0, ended.stderr);
    assert.ok(early !== undefined);
    // Whatever it comes to, this one has seen step 30 by then.
    const followed = await early;
    const leader = await killed;
    assert.ok(leader !== undefined, followed.stderr);
    assert.notEqual(await leaderOf(), leader);
    const late = await lockstep(watch);
    const told = linesOf(ended)
      .filter(({ type }) => type !== "config")
      .map(facts);
    for (const watched of [late, followed]) {
      const { code, stderr } = watched;
      const lines = linesOf(watched);
      assert.equal(code, 0, stderr);
      assert.deepEqual(
        lines.map(({ sequence }) => sequence),
        lines.map((_, index) => index + 1),
      );
      assert.deepEqual(lines.map(facts), told.slice(0, lines.length));
      // What the run says after its end, if anything, may come after a watcher has gone.
      assert.equal(lines.at(-1)?.type, "run.completed");
    }
    assert.deepEqual(
      late.of("step.completed").map(({ step }) => step),
      Array.from({ length: 150 }, (_, index) => index + 1),
    );
  },
);
