import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { mastersOf, type RunArguments, runJob } from "#tests/support/job-runs";
import { coordinatorOf, listeningPorts } from "#tests/support/processes";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A coordinator that is killed, and whose port another program has when it is started again.

const limit = { timeout: 240_000 };
const engine = join(packageRoot, "dist/tests/support/paced-engine.js");
const paced = { LOCKSTEP_TEST_BATCH_MS: "100" };

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    ...{ engine_module: engine, max_steps: 8, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "no", eval_on_start: false, reducer_processes: 2, metrics_port: null },
  });
});
after(() => job.remove());

/** Kills a process and listens where it did. */
async function replaced(pid: number): Promise<Server> {
  const [port = 0] = listeningPorts(pid);
  process.kill(pid, "SIGKILL");
  for (;;) {
    const server = createServer((socket) => socket.destroy()).listen(port, "127.0.0.1");
    try {
      await once(server, "listening");
      return server;
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EADDRINUSE");
    }
  }
}

type Act = (child: { kill(signal: NodeJS.Signals): boolean }, holder: Server) => void;

/** A run whose coordinator dies after its second step. @param act called when it waits for its port */
async function disturbed(name: string, act: Act) {
  let holder: Promise<Server> | undefined;
  const onEvent: RunArguments[3] = (event, child) => {
    if (event.type === "step.completed" && event.step === 2) {
      holder ??= replaced(coordinatorOf(child.pid ?? 0));
    }
    if (event.type === "note" && /where this run was, is in use/.test(event.text)) {
      void holder?.then((server) => act(child, server));
    }
  };
  const run = await runJob(job, "train", name, [], onEvent, paced);
  (await holder)?.close();
  return run;
}

test("it goes on as soon as the port is free, with the same bits", limit, async () => {
  const undisturbed = await runJob(job, "train", "undisturbed");
  const run = await disturbed("waits", (_child, holder) => holder.close());
  assert.equal(mastersOf(run), mastersOf(undisturbed));
  const told = run.of("note").filter(({ text }) => /is in use by another program/.test(text));
  assert.equal(told.length, 1, "only its own port, not those of the reducers that live");
});

test("who stops it meanwhile waits for nothing", limit, async () => {
  const { code, stderr } = await disturbed("stopped", (child) => child.kill("SIGTERM"));
  assert.equal(code, 143, stderr);
  assert.doesNotMatch(stderr, /E_PORT_IN_USE/);
});
