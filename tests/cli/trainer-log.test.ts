import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { linesOf, trainerLogFileName, writeTrainerLog } from "#run/trainer-log";
import { mountSmallDisk } from "#tests/support/small-disk";
import { InProcessEventBus } from "#lib/wire/event-bus";

const line = (step: number, rest = "loss"): string =>
  `{"current_steps": ${step}, "total_steps": 9, "${rest}": 1.0}`;
const history = [
  { step: 0, epoch: 0, eval_loss: 2 },
  { step: 2, epoch: 1, loss: 1 },
  { step: 4, epoch: 2, loss: 1 },
  { step: 4, epoch: 2, eval_loss: 2 },
];

test("lines after the checkpoint, cut lines and strange ones are taken out", () => {
  const kept = [line(0, "eval_loss"), line(2), line(4), line(4, "eval_loss")];
  assert.deepEqual(linesOf(`${kept.join("\n")}\n`, history), kept);
  const killed = [...kept, line(4, "train_loss"), line(6), line(6), line(8).slice(0, 30)];
  assert.deepEqual(linesOf(killed.join("\n"), history), kept);
  assert.deepEqual(linesOf(`# a note\n\n${kept.join("\n")}`, history), kept);
  assert.deepEqual(linesOf("", history), []);
});

test("a run that goes on continues the file, one that begins begins it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-trainer-log-"));
  const file = join(directory, trainerLogFileName);
  try {
    const logged = async (before: typeof history): Promise<string[]> => {
      const bus = new InProcessEventBus();
      const log = await writeTrainerLog(directory, bus, before);
      const entry = { step: 6, epoch: 3, loss: 0.5 };
      const times = { totalSteps: 9, elapsedSeconds: 12, numInputTokens: 0 };
      bus.publish({ type: "history.logged", entry, ...times });
      log.close();
      return (await readFile(file, "utf8")).trimEnd().split("\n");
    };
    await writeFile(file, [line(0), line(2), line(4), line(4), line(6)].join("\n"));
    const lines = await logged(history);
    assert.equal(lines.length, 5);
    assert.match(lines.at(-1) ?? "", /"current_steps": 6, .*"elapsed_time": "0:00:12"/);
    assert.equal((await logged([])).length, 1);
    assert.deepEqual(await readdir(directory), [trainerLogFileName]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("entries that a full disk refuses wait, are told of once, and follow whole", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-trainer-log-"));
  const disk = mountSmallDisk(join(directory, "disk"), 1 << 20);
  t.after(async () => {
    if (typeof disk !== "string") disk.remove();
    await rm(directory, { recursive: true });
  });
  if (typeof disk === "string") return t.skip(disk);
  const bus = new InProcessEventBus();
  const notes: string[] = [];
  bus.subscribe((event) => {
    if (event.type === "note") notes.push(event.text);
  });
  const log = await writeTrainerLog(disk.directory, bus, []);
  const times = { totalSteps: 999, elapsedSeconds: 12, numInputTokens: 0 };
  const logStep = (step: number): void =>
    bus.publish({ type: "history.logged", entry: { step, epoch: 1, loss: 0.5 }, ...times });
  disk.fillUp();
  // A page of the file is there to be written, and no second one.
  for (let step = 1; step <= 100; step++) logStep(step);
  assert.equal(notes.length, 1, notes.join("\n"));
  assert.match(notes[0] ?? "", /trainer_log\.jsonl is behind: No space is left.*Training goes on/);
  disk.free();
  logStep(101);
  disk.fillUp();
  log.close();
  const lines = (await readFile(join(disk.directory, trainerLogFileName), "utf8")).split("\n");
  assert.deepEqual(
    lines.slice(0, -1).map((text) => (JSON.parse(text) as { current_steps: number }).current_steps),
    Array.from({ length: 101 }, (_, index) => index + 1),
  );
});
