import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
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
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ max_steps: 150, logging_steps: 10, sample_prompt: null },
    ...{ eval_strategy: "steps", eval_steps: 50, save_strategy: "no", workers: 2 },
  });
});
after(() => job.remove());

/** `lockstep` with the events of its lines of JSON. */
const lockstep = (args: readonly string[], onEvent?: (event: LockstepEvent) => void) =>
  lockstepCommand(args, join(job.directory, "cache"), onEvent);

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
    const leaderOf = async (): Promise<string> => {
      const { cluster, config } = await (await link.manager()).streams.info(eventStream);
      assert.equal(config.num_replicas, 3);
      return cluster?.leader ?? "";
    };
    let killed: Promise<string> | undefined;
    const kill = async (): Promise<string> => {
      const leader = await leaderOf();
      const server = nats.servers.find(({ name }) => name === leader);
      assert.ok(server !== undefined, leader);
      await server.stop("SIGKILL");
      return leader;
    };
    let early: Promise<CommandOutcome> | undefined;
    const watch = ["watch", "--json", "--nats-url", url];
    const output = join(job.directory, "out");
    const ended = await lockstep(
      ["train", job.configFile, "--output_dir", output, "--nats_url", url, "--json-logs"],
      (event) => {
        if (event.type !== "step.completed" || event.step < 10) return;
        early ??= lockstep(watch, (seen) => {
          if (seen.type === "step.completed" && seen.step >= 30) killed ??= kill();
        });
      },
    );
    assert.equal(ended.code, 0, ended.stderr);
    const leader = await killed;
    assert.ok(leader !== undefined && leader !== "", "no leader was killed");
    assert.notEqual(await leaderOf(), leader);
    const late = await lockstep(watch);
    assert.ok(early !== undefined);
    const told = linesOf(ended)
      .filter(({ type }) => type !== "config")
      .map(facts);
    for (const watched of [late, await early]) {
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
