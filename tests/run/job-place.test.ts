import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Job } from "#lib/queue/job";
import { whyNotHere } from "#run/job-place";

test("a job that has come far is not begun anew where its output is not", async () => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-place-"));
  try {
    const none: ReadonlySet<string> = new Set();
    const outputDir = join(directory, "out");
    const base = { ...{ directory, outputDir, config: "max_steps: 9\n", flags: [] }, step: 0 };
    const why = (more: Partial<Job>, replaced = none): string | undefined =>
      whyNotHere({ ...base, ...more } as unknown as Job, replaced);
    assert.equal(why({}), undefined);
    assert.match(why({ step: 5 }) ?? "", /has no \S*out, where the job has come to step 5/);
    assert.match(why({ step: 5, config: "checkpoint_store: null" }) ?? "", /come to step 5/);
    assert.equal(why({ step: 5, config: "checkpoint_store: s3://b/p" }), undefined);
    assert.equal(why({ step: 5, flags: ["--checkpoint_store=s3://b/p"] }), undefined);
    assert.equal(why({ step: 5 }, new Set(["output_dir"])), undefined);
    assert.equal(why({ step: 5, outputDir: directory }), undefined);
    assert.match(
      why({ directory: outputDir }) ?? "",
      /no directory \S*out, where it was submitted/,
    );
  } finally {
    await rm(directory, { recursive: true });
  }
});
