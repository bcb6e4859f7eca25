import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig, trainLocal } from "#run/index";
import { createTinyJob } from "#tests/support/tiny-job";

test("another number of threads than TensorFlow was loaded with is told of", async () => {
  const job = await createTinyJob({ max_steps: 1, sample_prompt: null, eval_on_start: false });
  const warningsWith = async (threads: number): Promise<string[]> => {
    const { config } = await loadConfig(job.configFile, {
      ...{ threads_per_worker: threads, output_dir: join(job.directory, `with-${threads}`) },
    });
    const warnings: string[] = [];
    for await (const event of trainLocal(config)) {
      if (event.type === "note" && event.text.startsWith("warning: threads"))
        warnings.push(event.text);
    }
    return warnings;
  };
  assert.deepEqual(await warningsWith(1), []);
  assert.match((await warningsWith(2)).join("\n"), /^warning: threads_per_worker: 2 has no effect/);
  assert.equal((await warningsWith(1)).length, 0);
  await job.remove();
});
