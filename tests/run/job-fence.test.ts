import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { withCode } from "#tests/support/failure";
import { Owner } from "#tests/support/output-owner";
import { fenceEnvironment, jobFence } from "#run/job-fence";
import { claimOutputDirectory } from "#run/output-directory";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-fence-"));
});
after(() => rm(root, { recursive: true, force: true }));

const fence = (epoch: number, job = "abcdefgh") => ({ job, epoch });
const atOnce = { onWaiting: (text: string): void => assert.fail(`it waits: ${text}`) };

for (const withoutLocks of [false, true]) {
  const how = withoutLocks ? "without locks" : "with locks";
  test(`${how}: whoever has the job has its directory, though the owner before lives`, async () => {
    const output = join(root, how);
    const before = await Owner.start(output, { fence: fence(1), withoutLocks });
    // Once amid a save, which is not put in place when it goes on.
    const saved = before.saveSlowly("checkpoint-1");
    await before.untilWriting();
    before.signal("SIGSTOP");
    const claim = await claimOutputDirectory(output, { ...atOnce, fence: fence(2) });
    assert.equal(claim.epoch, before.epoch + 1);
    before.signal("SIGCONT");
    before.goOn();
    assert.equal(await saved, "E_OUTPUT_DIR_LOST");
    assert.equal(await before.lost(), "E_OUTPUT_DIR_LOST");
    assert.ok(!(await readdir(output)).includes("checkpoint-1"));
    // Of the giving before nobody has it any more, even when it is given up.
    const stale = { ...atOnce, fence: fence(1) };
    await assert.rejects(claimOutputDirectory(output, stale), withCode("E_JOB_TAKEN"));
    await claim.release();
    await assert.rejects(claimOutputDirectory(output, stale), withCode("E_JOB_TAKEN"));
    await before.kill();
  });
}

test("a fence says nothing to another job, to its own giving, or to a run without one", async () => {
  const output = join(root, "others");
  const owner = await Owner.start(output, { fence: fence(3) });
  for (const other of [fence(9, "zzzzzzzz"), fence(3), undefined]) {
    const claim = claimOutputDirectory(output, { ...atOnce, fence: other });
    await assert.rejects(claim, withCode("E_OUTPUT_DIR_IN_USE"));
  }
  await owner.kill();
  const claim = await claimOutputDirectory(output, { ...atOnce, fence: fence(1, "zzzzzzzz") });
  await claim.release();
});

test("a run's processes know the giving by their environment", () => {
  assert.deepEqual(jobFence(fenceEnvironment(fence(12))), fence(12));
  for (const value of ["", "abcdefgh", "abcdefgh -1", "../../etc 1", "abcdefgh 1 2"]) {
    assert.equal(jobFence({ LOCKSTEP_JOB: value }), undefined, value);
  }
  assert.equal(jobFence({}), undefined);
});
