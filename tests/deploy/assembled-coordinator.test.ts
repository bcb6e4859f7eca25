import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { assembleImage } from "#tests/support/assemble-image";
import { parseDockerfile } from "#tests/support/dockerfile";
import { runProgram } from "#tests/support/run-program";

const fixtures = join(packageRoot, "tests", "fixtures");

/** A job that needs no network and little of a machine. */
async function writeJob(directory: string): Promise<string> {
  const model = join(directory, "model");
  cpSync(join(fixtures, "tiny-llama"), model, { recursive: true });
  cpSync(join(fixtures, "tok"), model, { recursive: true });
  const text = join(directory, "text.txt");
  // The fixture's model has few words, so the text has only such that its tokenizer gives low numbers.
  await writeFile(text, "3141592653589793238462643383279502884197".repeat(100));
  const file = join(directory, "job.yaml");
  // JSON is YAML.
  await writeFile(
    file,
    JSON.stringify({
      model_name_or_path: model,
      dataset: text,
      eval_dataset: text,
      max_length: 32,
      max_steps: 2,
      per_device_train_batch_size: 2,
      workers: 1,
      listen: "127.0.0.1:0",
      metrics_port: 0,
      output_dir: join(directory, "output"),
    }),
  );
  return file;
}

test("the coordinator's image, put together as its Dockerfile says, starts and serves without TensorFlow", {
  timeout: 180_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-image-"));
  try {
    const stages = parseDockerfile(
      readFileSync(join(packageRoot, "deploy", "docker", "coordinator.Dockerfile"), "utf8"),
    );
    const dockerignore = readFileSync(join(packageRoot, ".dockerignore"), "utf8");
    const root = await assembleImage(stages, dockerignore, directory);
    const app = join(root, "app");
    for (const name of ["@tensorflow", "typescript", "@grafana/grafana-foundation-sdk"]) {
      assert.ok(!existsSync(join(app, "node_modules", name)), `${name} is in the image`);
    }
    for (const name of ["lib", "tests", "dist/tests", "scripts"]) {
      assert.ok(!existsSync(join(app, name)), `${name} is in the image`);
    }
    const help = await runProgram(process.execPath, ["bin/lockstep", "--help"], { cwd: app });
    assert.equal(help.code, 0, help.stderr);

    const job = await writeJob(directory);
    const child = spawn(process.execPath, ["bin/lockstep", "coordinator", job], {
      cwd: app,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const exit = once(child, "exit");
    let output = "";
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    let http = "";
    try {
      for await (const line of createInterface({ input: child.stdout })) {
        output += `${line}\n`;
        http ||= /metrics (http:\S+)\/metrics/.exec(line)?.[1] ?? "";
        if (line.includes("Workers join with")) break;
      }
      assert.match(output, /Workers join with: lockstep worker --coordinator 127\.0\.0\.1:\d+/);
      assert.equal((await fetch(`${http}/healthz`)).status, 200);
      assert.equal((await fetch(`${http}/readyz`)).status, 200);
      assert.match(await (await fetch(`${http}/metrics`)).text(), /^lockstep_build_info\{/m);
      assert.equal((await fetch(`${http}/`)).status, 200, "the dashboard's page is missing");
      child.stdout.resume();
      child.kill("SIGTERM");
      const [code] = (await exit) as [number | null];
      assert.equal(code, 143, output);
    } finally {
      if (child.exitCode === null) child.kill("SIGKILL");
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
