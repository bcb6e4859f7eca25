import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, mock, test } from "node:test";
import { saveAtomically } from "#lib/checkpoint/index";
import { isLockstepError, type LockstepError } from "#lib/core/errors/index";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { claimOutputDirectory } from "#run/output-directory";
import { apart, Owner, withoutLocks } from "#tests/support/output-owner";

let directory = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-output-"));
});

after(() => rm(directory, { recursive: true, force: true }));

const withCode = (code: string) => (error: unknown) =>
  isLockstepError(error) && error.code === code;
const isInUse = withCode("E_OUTPUT_DIR_IN_USE");

/** For a claim that is to be had, or refused, without waiting. */
const atOnce = {
  onWaiting: (text: string): void => assert.fail(`it waits: ${text}`),
};
/** For one that waits: longer than a machine under load is silent. */
const patient = { beatMs: 50, silentMs: 3_000 };

async function claimed(path: string, options = {}): Promise<number> {
  const claim = await claimOutputDirectory(path, options);
  await claim.release();
  return claim.epoch;
}

test("a place where nothing can be made is told at once", async () => {
  for (const place of ["/proc/lockstep-output", "/proc/lockstep/output"]) {
    await assert.rejects(claimOutputDirectory(place), withCode("E_CHECKPOINT_WRITE"));
  }
});

test("a directory belongs to one run, under each of its names, until it is given up", async () => {
  const output = join(directory, "a", "b");
  const claim = await claimOutputDirectory(output);
  assert.deepEqual(await readdir(output), [claimFolder], "nothing that others read");
  await symlink(output, join(directory, "link"));
  await assert.rejects(claimOutputDirectory(output), isInUse);
  await assert.rejects(claimOutputDirectory(join(directory, "link")), isInUse);
  await claimed(join(directory, "other"));
  await cp(output, join(directory, "copy"), { recursive: true });
  assert.equal(await claimed(join(directory, "copy"), atOnce), 2);
  await claim.release();
  await claimed(output);
});

test("the number of a claim rises with each, given up, killed or lost", async () => {
  const output = join(directory, "epochs");
  assert.equal(await claimed(output), 1);
  assert.equal(await claimed(output), 2);
  await assert.rejects(claimOutputDirectory("/proc/x"), withCode("E_CHECKPOINT_WRITE"));
  const owner = await Owner.start(output);
  assert.equal(owner.epoch, 3);
  await assert.rejects(claimOutputDirectory(output), isInUse);
  await owner.kill();
  assert.equal(await claimed(output, atOnce), 4);
  const names = await readdir(join(output, claimFolder));
  assert.deepEqual(names.sort(), ["epoch-4.json", "lock"]);
});

for (const [locks, options] of [
  ["with locks", {}],
  ["without locks", { withoutLocks: true }],
] as const) {
  const own = "withoutLocks" in options ? { tryLock: withoutLocks } : {};

  test(`a killed process leaves no claim behind, ${locks}`, async () => {
    const output = join(directory, `killed ${locks}`);
    const owner = await Owner.start(output, options);
    await assert.rejects(claimOutputDirectory(output, { ...own, ...atOnce }), isInUse);
    await owner.kill();
    await claimed(output, { ...own, ...atOnce });
  });

  test(`a stopped process keeps its claim, ${locks}`, async () => {
    const output = join(directory, `stopped ${locks}`);
    const owner = await Owner.start(output, options);
    owner.signal("SIGSTOP");
    await assert.rejects(claimOutputDirectory(output, { ...own, ...patient, ...atOnce }), isInUse);
    owner.signal("SIGCONT");
    assert.equal(await owner.save("checkpoint-1"), "saved");
    await owner.kill();
  });

  for (const namespace of ["net", "pid"] as const) {
    test(`a claim holds in another ${namespace} namespace, ${locks}`, async (t) => {
      const prefix = apart(t, namespace);
      if (prefix === undefined) return;
      const output = join(directory, `${namespace} ${locks}`);
      const mine = await claimOutputDirectory(output, { ...own, beatMs: 50 });
      assert.equal(await Owner.refusal(output, { ...options, prefix }), "E_OUTPUT_DIR_IN_USE");
      await mine.release();
      const owner = await Owner.start(output, { ...options, prefix });
      await assert.rejects(claimOutputDirectory(output, { ...own, ...patient }), isInUse);
      await owner.kill();
      // Of a process of another pid namespace only its lock tells, or its silence.
      const isTold = locks === "with locks" || namespace === "net";
      await claimed(output, { ...own, ...patient, ...(isTold ? atOnce : {}) });
    });
  }
}

test("an owner that was stopped for too long writes nothing when it goes on", async (t) => {
  const prefix = apart(t, "pid");
  if (prefix === undefined) return;
  const output = join(directory, "continued");
  const owner = await Owner.start(output, { prefix, withoutLocks: true, ...patient });
  assert.equal(await owner.save("checkpoint-1"), "saved");
  const halfWritten = owner.saveSlowly("checkpoint-1");
  await owner.untilWriting();
  owner.signal("SIGSTOP");
  const lines: string[] = [];
  const mine = await claimOutputDirectory(output, {
    ...{ ...patient, tryLock: withoutLocks },
    onWaiting: (line) => lines.push(line),
  });
  assert.equal(mine.epoch, owner.epoch + 1);
  assert.match(lines.join("\n"), /of whom nothing is known/);
  await saveAtomically(join(output, "checkpoint-1"), (temporary) =>
    writeFile(join(temporary, "state"), "mine"),
  );
  const names = (await readdir(output)).sort();
  assert.deepEqual(names, [claimFolder, "checkpoint-1"], "what was half written is gone");
  owner.signal("SIGCONT");
  owner.goOn();
  assert.equal(await halfWritten, "E_OUTPUT_DIR_LOST");
  assert.equal(await owner.save("checkpoint-1"), "E_OUTPUT_DIR_LOST");
  assert.equal(await owner.save("checkpoint-2"), "E_OUTPUT_DIR_LOST");
  assert.equal(await owner.lost(), "E_OUTPUT_DIR_LOST");
  assert.deepEqual((await readdir(output)).sort(), names);
  assert.equal(await readFile(join(output, "checkpoint-1", "state"), "utf8"), "mine");
  await owner.kill();
  await mine.release();
});

test("clocks that jump change no claim", async (t) => {
  const output = join(directory, "clocks");
  const folder = join(output, claimFolder);
  const mine = await claimOutputDirectory(output, { tryLock: withoutLocks, beatMs: 50 });
  // As a machine sees it whose clock is wrong, and which knows nothing of this process.
  const foreign = async (change: object): Promise<void> => {
    const file = join(folder, `epoch-${mine.epoch}.json`);
    const record = JSON.parse(await readFile(file, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...record, ...change }).padEnd(1024));
    for (const date of [new Date(0), new Date("2100-01-01")]) await utimes(file, date, date);
  };
  mock.timers.enable({ apis: ["Date"], now: new Date("2100-01-01").getTime() });
  t.after(() => mock.timers.reset());
  await foreign({ domain: "another kernel" });
  await assert.rejects(
    claimOutputDirectory(output, { ...patient, tryLock: withoutLocks }),
    isInUse,
  );
  await mine.release();
  await foreign({ domain: "another kernel", isReleased: false });
  mock.timers.setTime(0);
  const epoch = await claimed(output, { beatMs: 20, silentMs: 200, tryLock: withoutLocks });
  assert.equal(epoch, mine.epoch + 1);
});

test("of many that follow one owner, one has the directory", async () => {
  const output = join(directory, "many");
  const folder = join(output, claimFolder);
  await mkdir(folder, { recursive: true });
  // Cut off while it was written: nobody knows whose it was.
  await writeFile(join(folder, "epoch-6.json"), '{"epoch":6,');
  const options = { tryLock: withoutLocks, beatMs: 20, silentMs: 300 };
  const [here, there] = await Promise.all([
    Promise.allSettled(Array.from({ length: 10 }, () => claimOutputDirectory(output, options))),
    Promise.allSettled(
      Array.from({ length: 3 }, () =>
        Owner.start(output, { withoutLocks: true, beatMs: 20, silentMs: 300 }),
      ),
    ),
  ]);
  const claims = here.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  const owners = there.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  assert.deepEqual(
    [...claims, ...owners].map(({ epoch }) => epoch),
    [7],
  );
  await Promise.all(owners.map((owner) => owner.kill()));
  await Promise.all(claims.map((claim) => claim.release()));
});

test("a claim outlives its folder, until another run takes the directory", async () => {
  const output = join(directory, "removed");
  const lost: LockstepError[] = [];
  const claim = await claimOutputDirectory(output, {
    // Only saves look.
    beatMs: 3_600_000,
    onLost: (error) => lost.push(error),
  });
  const save = (name: string): Promise<void> =>
    saveAtomically(join(output, name), (temporary) => writeFile(join(temporary, "state"), ""));
  await rm(output, { recursive: true });
  await save("checkpoint-1");
  await assert.rejects(claimOutputDirectory(output), isInUse);
  await rm(output, { recursive: true });
  const other = await Owner.start(output);
  await assert.rejects(save("checkpoint-2"), withCode("E_OUTPUT_DIR_LOST"));
  assert.deepEqual(
    lost.map(({ code }) => code),
    ["E_OUTPUT_DIR_LOST"],
  );
  assert.equal(await other.save("checkpoint-2"), "saved");
  await claim.release();
  assert.equal(await other.save("checkpoint-3"), "saved");
  await other.kill();
});

test("whoever waits for a silent owner can be stopped", async () => {
  const output = join(directory, "aborted");
  await mkdir(join(output, claimFolder), { recursive: true });
  await writeFile(join(output, claimFolder, "epoch-1.json"), "");
  const stop = new AbortController();
  const claim = claimOutputDirectory(output, {
    signal: stop.signal,
    onWaiting: () => stop.abort(),
  });
  await assert.rejects(claim, { name: "AbortError" });
});

test("what is no record and stands in the place of one is outwaited", async () => {
  const makers: Readonly<Record<string, (place: string) => unknown>> = {
    "a link to nothing": (place) => symlink("missing", place),
    "a link to itself": (place) => symlink(place, place),
    "a link to a device": (place) => symlink("/dev/zero", place),
    "a pipe": (place) => execFileSync("mkfifo", [place]),
    "a directory": (place) => mkdir(place),
    "4 GiB of nothing": (place) => execFileSync("truncate", ["--size", "4G", place]),
  };
  await Promise.all(
    Object.entries(makers).map(async ([name, make]) => {
      const output = join(directory, name);
      await mkdir(join(output, claimFolder), { recursive: true });
      await make(join(output, claimFolder, "epoch-1.json"));
      assert.equal(await claimed(output, { beatMs: 20, silentMs: 100 }), 2, name);
      assert.equal(await claimed(output, atOnce), 3, name);
    }),
  );
});

test("a file where the directory should be is an error with a code", async () => {
  await writeFile(join(directory, "file"), "");
  await assert.rejects(
    claimOutputDirectory(join(directory, "file")),
    withCode("E_CHECKPOINT_WRITE"),
  );
  await assert.rejects(
    claimOutputDirectory(join(directory, "file", "below")),
    withCode("E_CHECKPOINT_WRITE"),
  );
});
