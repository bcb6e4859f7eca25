import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { WatchedJob } from "#cli/watched-job";
import type { Job, JobBeat } from "#lib/queue/job";
import { NatsLink } from "#lib/wire/nats/connection";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { startNats } from "#tests/support/nats-server";
import { descendantsOf, signalAll } from "#tests/support/processes";
import { type StartedAgent, TestAgents } from "#tests/support/started-agent";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// The commands of a queue and real runs of the fake engine, in real processes.

const limit = { timeout: 240_000 };
/** Agents with it tell soon how far a run is. */
const shortLease = ["--lease-ms=3000"];
/** For agents whose runs are to be there still when they are disturbed: a step takes 0.2 s at least. */
const pace = { LOCKSTEP_TEST_BATCH_MS: "100" };
let job: TinyJob;
const agents = new TestAgents();

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
    ...{ sample_prompt: null, eval_on_start: false, eval_on_end: false, workers: 1 },
    ...{ save_strategy: "steps", save_steps: 10, save_total_limit: 2 },
  });
});

after(async () => {
  agents.killAll();
  await job.remove();
});

type Listed = Job & { readonly beat: JobBeat | null; readonly waitsFor: readonly string[] };

/** The commands of one queue. */
class Queue {
  readonly #place: readonly string[];

  constructor(...place: readonly string[]) {
    this.#place = place;
  }

  async run(...args: readonly string[]): Promise<string> {
    const { code, lines, stderr } = await this.try(...args);
    assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
    return lines.join("\n");
  }

  try(...args: readonly string[]) {
    const all = [...args, ...this.#place];
    const cache = join(job.directory, "cache");
    return lockstepCommand(all, cache, undefined, {}, process.execPath, job.directory);
  }

  async submit(...args: readonly string[]): Promise<string> {
    return this.run("submit", "job.yaml", "--quiet", ...args);
  }

  async listed(id: string): Promise<Listed> {
    const text = await this.run("list", "--all", "--json");
    const jobs = text.split("\n").map((line) => JSON.parse(line) as Listed);
    const found = jobs.find((each) => each.id === id);
    assert.ok(found !== undefined, text);
    return found;
  }

  /** Asks again and again: nothing tells a process of another one's queue. */
  async until(id: string, is: (now: Listed) => boolean): Promise<Listed> {
    for (;;) {
      const now = await this.listed(id);
      if (is(now)) return now;
      assert.ok(!["parked", "failed", "done"].includes(now.state), JSON.stringify(now));
    }
  }

  agent(name: string, ...args: readonly string[]): StartedAgent {
    return agents.start(job.directory, ["--name", name, ...this.#place, ...args]);
  }

  paced(name: string, ...args: readonly string[]): StartedAgent {
    return agents.start(job.directory, ["--name", name, ...this.#place, ...args], pace);
  }
}

const step = ({ step: last, beat }: Listed): number => Math.max(last, beat?.step ?? 0);

test(
  "jobs run by turn, a sweep has directories of its own, and what fails is parked",
  limit,
  async () => {
    const queue = new Queue("--queue", "turns");
    // The file is there when it is submitted, and gone when it is run.
    const poison = await queue.submit(
      "--priority=9",
      "--set=dataset=gone.txt",
      "--set=output_dir=p",
    );
    const sweep = (
      await queue.submit("--sweep=learning_rate=1e-3,2e-3", "--priority=1", "--set=output_dir=s")
    ).split("\n");
    assert.equal(sweep.length, 2);
    const last = await queue.submit(
      "--after",
      sweep.join(),
      "--set=output_dir=last",
      "--priority=5",
    );
    assert.deepEqual(new Set((await queue.listed(last)).waitsFor), new Set(sweep));
    const table = await queue.run("list");
    assert.match(table, new RegExp(`^${last} +queued +5 .*waits for .*\\(queued\\)`, "m"));

    const { child, said } = queue.agent("one", "--until-empty");
    const [code] = (await once(child, "exit")) as [number | null];
    assert.equal(code, 0, said.join(""));
    const order = [...said.join("").matchAll(/Z (\w{8}) \S.*: takes it/g)].map(([, id]) => id);
    assert.deepEqual(
      order.filter((id) => id !== poison),
      [...sweep, last],
    );
    for (const rate of ["1e-3", "2e-3"]) {
      const state = join(job.directory, `s/learning_rate=${rate}/trainer_state.json`);
      assert.match(readFileSync(state, "utf8"), new RegExp(`"learning_rate": 0.00${rate[0]}`));
    }
    assert.equal((await queue.listed(last)).state, "done");
    const parked = await queue.listed(poison);
    assert.deepEqual([parked.state, parked.tries], ["parked", 3]);
    assert.match(parked.error ?? "", /E_DATASET_UNKNOWN: .*gone\.txt/);
    // Only what waits, runs or needs somebody is shown.
    const now = await queue.run("list");
    assert.match(now, new RegExp(`^${poison} +parked .*E_DATASET_UNKNOWN`, "m"));
    assert.match(now, /^3 jobs done or cancelled \(--all shows them\)$/m);
  },
);

test(
  "a job that is paused, left, killed and stopped ends with the undisturbed one's bits",
  limit,
  async () => {
    const queue = new Queue("--queue", "disturbed");
    const long = ["--set=max_steps=300"];
    const first = await queue.submit(...long, "--set=output_dir=calm");
    const id = await queue.submit(...long, "--set=output_dir=rough");

    let agent = queue.agent("calm", "--jobs=1");
    assert.deepEqual(await once(agent.child, "exit"), [0, null], agent.said.join(""));
    const calm = await queue.listed(first);
    assert.match(calm.result?.mastersSha256 ?? "", /^[0-9a-f]{64}$/);

    agent = queue.paced("pausing", ...shortLease);
    const before = await queue.until(id, (now) => step(now) > 0);
    assert.equal(before.owner?.agent, "pausing");
    assert.match(await queue.run("checkpoint", id), /^\w+ agent pausing is asked to save/);
    assert.match(await queue.run("pause", id), /^\w+ agent pausing is asked to stop it/);
    const paused = await queue.until(id, ({ state }) => state === "paused");
    assert.ok(existsSync(join(job.directory, `rough/checkpoint-${paused.step}`)));
    assert.ok(agent.said.join("").includes("saves a checkpoint, which was asked for"));
    await queue.run("resume", id);

    await queue.until(id, (now) => now.state === "running" && step(now) > paused.step);
    agent.child.kill("SIGTERM");
    assert.deepEqual(await once(agent.child, "exit"), [143, null], agent.said.join(""));
    const left = await queue.listed(id);
    assert.deepEqual([left.state, left.tries], ["queued", 0]);

    agent = queue.paced("killed", ...shortLease);
    await queue.until(id, (now) => now.state === "running" && step(now) > left.step);
    const [run] = descendantsOf(agent.child.pid ?? 0);
    agent.child.kill("SIGKILL");
    assert.ok(run !== undefined);
    // The agent that is gone is not waited for; its run leaves by itself.
    agent = queue.paced("stopped", ...shortLease);
    const taken = await queue.until(id, (now) => now.owner?.agent === "stopped" && step(now) > 0);
    assert.match(taken.error ?? "", /agent killed .* ended and left the job unfinished/);

    // Neither agent nor run know that the job is another's when they go on.
    signalAll(agent.child.pid ?? 0, "SIGSTOP");
    const other = queue.agent("other", "--until-empty", ...shortLease);
    const given = await queue.until(id, (now) => now.owner?.agent === "other" && step(now) > 0);
    assert.match(given.error ?? "", /agent stopped .* gave no sign of life for 3 s/);
    signalAll(agent.child.pid ?? 0, "SIGCONT");
    assert.deepEqual(await once(other.child, "exit"), [0, null], other.said.join(""));
    agent.child.kill("SIGTERM");
    await once(agent.child, "exit");
    assert.match(agent.said.join(""), /was given to another agent|belongs to another agent/);
    const rough = await queue.listed(id);
    assert.equal(rough.state, "done");
    assert.equal(rough.result?.mastersSha256, calm.result?.mastersSha256);
  },
);

test("workers join the coordinators of jobs, and those that take their place", limit, async () => {
  const queue = new Queue("--queue", "parts");
  const settings = ["--set=max_steps=60", "--set=workers=2", "--set=metrics_port=null"];
  const whole = await queue.submit(...settings, "--set=output_dir=whole");
  let agent = queue.agent("whole", "--jobs=1");
  assert.deepEqual(await once(agent.child, "exit"), [0, null], agent.said.join(""));
  const expected = (await queue.listed(whole)).result?.mastersSha256;
  assert.match(expected ?? "", /^[0-9a-f]{64}$/);

  const module = join(packageRoot, "dist/tests/support/paced-engine.js");
  const own = ["--", "--use-cpu", "--engine-module", module];
  const workers = ["w1", "w2"].map((name) => queue.paced(name, "--role=worker", ...own));
  const id = await queue.submit(...settings, "--set=output_dir=parts");
  agent = queue.agent("first", "--role=coordinator", ...shortLease);
  await queue.until(id, (now) => step(now) > 0 && now.beat?.workers?.joined === 2);
  agent.child.kill("SIGKILL");
  agent = queue.agent("second", "--role=coordinator", "--until-empty");
  assert.deepEqual(await once(agent.child, "exit"), [0, null], agent.said.join(""));
  const parts = await queue.listed(id);
  assert.deepEqual([parts.state, parts.epoch], ["done", 2]);
  // The first one's run may have come to its end before it saw that its agent is gone; then the second one's made nothing.
  assert.equal(parts.result?.mastersSha256 ?? expected, expected);
  const weights = (directory: string): Buffer =>
    readFileSync(join(job.directory, directory, "model.safetensors"));
  assert.ok(weights("parts").equals(weights("whole")));
  for (const { child, said } of workers) {
    child.kill("SIGTERM");
    assert.deepEqual(await once(child, "exit"), [143, null], said.join(""));
  }
});

test("jobs of a sweep have places of their own in a store, and no lease in common", async () => {
  const queue = new Queue("--queue", "stores");
  const store = "--set=checkpoint_store=s3://bucket/runs/";
  const sweep = ["--sweep=learning_rate=1e-3,1e+3", "--set=output_dir=stores"];
  const ids = (await queue.submit(store, ...sweep)).split("\n");
  const places = await Promise.all(
    ids.map(async (id) =>
      (await queue.listed(id)).flags.filter((flag) => flag.startsWith("--checkpoint_store=")),
    ),
  );
  assert.deepEqual(places, [
    ["--checkpoint_store=s3://bucket/runs/learning_rate-1e-3"],
    ["--checkpoint_store=s3://bucket/runs/learning_rate-1ep3"],
  ]);
  const lease = ["--set=nats_url=nats://127.0.0.1:1", "--set=nats_lease=one"];
  const { code, stderr } = await queue.try("submit", "job.yaml", ...lease, ...sweep);
  assert.equal(code, 1);
  assert.match(stderr, /^E_JOB_CONFIG: .*nats_lease is the name of one run/);
});

test("a run whose agent is gone before it begins does not begin", limit, async () => {
  const [cache, environment] = [join(job.directory, "cache"), { LOCKSTEP_AGENT: "1" }];
  const { code, of } = await lockstepCommand(
    ["train", "job.yaml", "--json-logs", "--output_dir=orphan"],
    ...([cache, undefined, environment, process.execPath, job.directory] as const),
  );
  // A signal ended it.
  assert.equal(code, null);
  assert.deepEqual(of("step.completed"), []);
});

test("what cannot be a job is refused by name before it is queued", async () => {
  const queue = new Queue("--queue", "refused");
  const refused = async (...args: readonly string[]): Promise<string> => {
    const { code, stderr } = await queue.try(...args);
    assert.notEqual(code, 0, args.join(" "));
    return stderr.split("\n")[0] ?? "";
  };
  const submit = (...args: readonly string[]) => refused("submit", "job.yaml", ...args);
  const refusedAgent = async (...flags: readonly string[]): Promise<string> => {
    const all = ["agent", "--role=coordinator", "--queue=refused", "--", ...flags];
    const cache = join(job.directory, "cache");
    const { code, stderr } = await lockstepCommand(
      all,
      cache,
      undefined,
      {},
      process.execPath,
      job.directory,
    );
    assert.notEqual(code, 0);
    return stderr.split("\n")[0] ?? "";
  };
  assert.match(await submit("--set", "no_such_key=1"), /^E_CONFIG_UNKNOWN_KEY/);
  assert.match(await submit("--set", "hub_token=x"), /^E_JOB_CONFIG: .*hub_token would be kept/);
  assert.match(await submit("--set", "overwrite_output_dir=true"), /^E_JOB_CONFIG: .*remove/);
  assert.match(await submit("--after", "zzzzzzzz"), /^E_JOB_UNKNOWN: .*has no job zzzzzzzz/);
  assert.match(await submit("--priority", "high"), /^E_USAGE: .*--priority must be a whole number/);
  assert.match(await refused("submit", "none.yaml"), /^E_FILE_NOT_FOUND/);
  const keys: unknown = parse(readFileSync(join(job.directory, "job.yaml"), "utf8"));
  const oneLine = JSON.stringify({ ...(keys as object), hub_token: "secret" });
  writeFileSync(join(job.directory, "flow.yaml"), oneLine);
  assert.match(await refused("submit", "flow.yaml"), /^E_JOB_CONFIG: .*hub_token would be kept/);
  assert.match(await submit("--set", "standby=true"), /^E_CONFIG_\w+: .*standby/);
  // A slip in the name of a queue is none that is empty.
  const unmade = new Queue("--queue", "unmade");
  for (const command of [["cancel", "zzzzzzzz"], ["list"]]) {
    assert.match((await unmade.try(...command)).stderr, /^E_QUEUE_UNMADE: .*unmade/);
  }
  const { lines } = await unmade.try("agent", "--until-empty");
  assert.match(lines.join("\n"), /ends after 0 jobs/);
  assert.match(await unmade.run("list"), /^No job of unmade waits or runs$/);
  assert.match(await refused("cancel", "zzzzzzzz"), /^E_JOB_UNKNOWN/);
  assert.match(
    await refusedAgent("--standby"),
    /^E_USAGE: .*--standby is not for a run of a queue/,
  );
  assert.match(
    await refused("list", "--nats-token-file=x"),
    /^E_USAGE: .*has no effect on a queue/,
  );
  const { stderr } = await new Queue().try("list");
  assert.match(stderr, /^E_USAGE: .*--queue DIR or --nats-url is missing/);
});

test("a watcher of a job sees the run of the try that ends it", {
  ...limit,
  ...needs("natsServer"),
}, async () => {
  const nats = await startNats();
  try {
    const queue = new Queue("--nats-url", nats.settings.url);
    // Killed before it saves, so that the next try is another run.
    const settings = ["--set=max_steps=300", "--set=save_strategy=no", "--set=output_dir=tries"];
    const id = await queue.submit(...settings);
    let agent = queue.paced("first", ...shortLease);
    const { beat } = await queue.until(id, (now) => step(now) > 0);
    const watched = queue.try("watch", id, "--json");
    signalAll(agent.child.pid ?? 0, "SIGKILL");
    agent = queue.agent("second", "--until-empty");
    assert.deepEqual(await once(agent.child, "exit"), [0, null], agent.said.join(""));
    const { code, lines, stderr } = await watched;
    assert.equal(code, 0, stderr);
    const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.equal(events[0]?.["runId"], beat?.runId);
    assert.deepEqual([events.at(-1)?.["type"], events.at(-1)?.["step"]], ["run.completed", 300]);
    const { runId } = await queue.listed(id);
    assert.notEqual(runId, beat?.runId);
    assert.equal(events.at(-1)?.["runId"], runId);
  } finally {
    await nats.close();
  }
});

test("a job of a server is watched by its id", { ...limit, ...needs("natsServer") }, async () => {
  const nats = await startNats();
  try {
    const queue = new Queue("--nats-url", nats.settings.url);
    const id = await queue.submit("--set=output_dir=watched");
    const { child, said } = queue.agent("one", "--until-empty");
    assert.deepEqual(await once(child, "exit"), [0, null], said.join(""));
    const events = (await queue.run("watch", id, "--json")).split("\n").map((line) => {
      const { type, step: at, sequence } = JSON.parse(line) as Record<string, unknown>;
      return { type, at, sequence };
    });
    const steps = events.filter(({ type }) => type === "step.completed").map(({ at }) => at);
    assert.deepEqual(steps, [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      events.map((_, i) => i + 1),
    );
    assert.equal(events.at(-1)?.type, "run.completed");

    const role = { role: "submitter", name: "test", onNews: () => {} } as const;
    const link = await NatsLink.open(nats.settings, role);
    try {
      const watched = await WatchedJob.find(link, id);
      const { runId } = await queue.listed(id);
      const over = { hasEnded: () => true, signal: new AbortController().signal };
      const followed = () => watched?.following(runId ?? "", over);
      assert.deepEqual(await followed(), { code: 0 });
      const kv = await link.streams.views.kv("lockstep-jobs", { bindOnly: true });
      await kv.put(`jobs.${id}`, "{}");
      await assert.rejects(async () => followed(), { code: "E_QUEUE_RECORD" });
      // A queue keeps the last jobs that are over; nobody waits for what is gone.
      await kv.delete(`jobs.${id}`);
      assert.equal(await followed(), undefined);
    } finally {
      await link.close();
    }
  } finally {
    await nats.close();
  }
});
