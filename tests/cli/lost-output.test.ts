import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { namesOfRun } from "#tests/support/run-files";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A run that was stopped for so long that another machine took its output directory.

let job: TinyJob;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ max_steps: 5_000, logging_steps: 10, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "steps", save_steps: 20, save_total_limit: 2, workers: 1 },
  });
});
after(() => job.remove());

/** Files of a run, with their bytes; workers' logs are their own, and what is half written or half removed is nobody's. */
function filesIn(output: string): Readonly<Record<string, string>> {
  const names = namesOfRun(output).filter((name) => !/^logs|\.(tmp|previous|removed)-/.test(name));
  const files = names.filter((name) => statSync(join(output, name)).isFile());
  return Object.fromEntries(files.map((name) => [name, readFileSync(join(output, name), "hex")]));
}

/** As another machine leaves it that saw no sign of life. */
function takeOver(output: string): void {
  const folder = join(output, claimFolder);
  const [name = ""] = readdirSync(folder).filter((each) => each.startsWith("epoch-"));
  const record = JSON.parse(readFileSync(join(folder, name), "utf8")) as { epoch: number };
  const epoch = record.epoch + 1;
  const other = { ...record, epoch, owner: "another", host: "other-machine", domain: null };
  writeFileSync(join(folder, `epoch-${epoch}.json`), JSON.stringify(other).padEnd(1024));
}

for (const [command, flags, isDue] of [
  ["train", ["--json-logs"], /"type":"checkpoint\.saved"/],
  ["train-local", ["--save_strategy", "no"], /^step 5\//],
] as const) {
  test(`${command} writes nothing more into a directory that it lost`, async (t) => {
    const output = join(job.directory, command);
    const child = spawn(
      process.execPath,
      [
        ...[join(packageRoot, "bin/lockstep"), command, job.configFile, "--output_dir", output],
        ...flags,
      ],
      {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, LOCKSTEP_CACHE: join(job.directory, "cache") },
      },
    );
    t.after(() => child.kill("SIGKILL"));
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    let before: Readonly<Record<string, string>> | undefined;
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (before !== undefined || !isDue.test(line)) return;
      child.kill("SIGSTOP");
      takeOver(output);
      before = filesIn(output);
      child.kill("SIGCONT");
    });
    const [code] = await once(child, "close");
    assert.equal(code, 76, stderr);
    assert.match(stderr, /E_OUTPUT_DIR_LOST.*other-machine/);
    assert.ok(before !== undefined);
    assert.deepEqual(filesIn(output), before);
  });
}
