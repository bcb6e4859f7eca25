import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { usages } from "#cli/usage";
import { packageRoot } from "#lib/core/paths";
import { likelyName } from "#lib/core/edit-distance";
import { runProgram } from "#tests/support/run-program";
import { importsOf, packageOf, readSource, staticClosure } from "#tests/support/source-files";

const lockstep = (...args: string[]) =>
  runProgram(process.execPath, [join(packageRoot, "bin/lockstep"), ...args]);

const names = Object.keys(usages);

test("every command has a usage, and --help and -h print it whatever else is there", async () => {
  const { code, stdout } = await lockstep("--help");
  assert.equal(code, 0);
  const listed = [...stdout.matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name);
  // The set-up is a script of its own: it has to run where nothing is built or installed.
  assert.deepEqual(new Set(listed), new Set([...names, "setup"]));
  for (const asked of [
    ["setup", "--help"],
    ["help", "setup"],
  ]) {
    const { code: exitCode, stderr, stdout: told } = await lockstep(...asked);
    assert.deepEqual([exitCode, stderr], [0, ""]);
    assert.match(told, /^Usage: npx lockstep setup /);
  }
  for (const name of names) {
    const helped = await lockstep(name, ...(name === "worker" ? ["-h"] : ["--wat", "--help"]));
    assert.deepEqual([helped.code, helped.stderr], [0, ""], name);
    assert.equal(helped.stdout, usages[name as keyof typeof usages]);
    assert.ok(helped.stdout.startsWith(`Usage: lockstep ${name} `), name);
  }
  assert.equal((await lockstep("help", "classify")).stdout, usages.classify);
});

test("what answers loads neither the engine nor the network", () => {
  const packages = new Set(
    [...staticClosure("cli/main.ts")].flatMap((path) =>
      importsOf(readSource(path))
        .filter(({ typeOnly, dynamic }) => !typeOnly && !dynamic)
        .map(({ specifier }) => packageOf(specifier)),
    ),
  );
  assert.ok(packages.has("zod"), "the imports are not seen");
  assert.deepEqual(
    [...packages].filter((name) => /^@tensorflow|^@grpc|fastify|nats|tokenizers/.test(name ?? "")),
    [],
  );
});

test("an unknown command exits 2, with the one that was meant or with all there are", async () => {
  for (const args of [["trian"], ["help", "trian"], ["trian", "--help"]]) {
    const slip = await lockstep(...args);
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /^E_USAGE: lockstep trian: .*; did you mean train\?\n/);
  }
  const far = await lockstep("frobnicate");
  assert.equal(far.code, 2);
  assert.ok(far.stderr.includes(`; there are ${Object.keys(usages)[0]}, `), far.stderr);
  for (const name of names) assert.ok(far.stderr.includes(name), name);
  assert.equal((await lockstep()).code, 2);
});

test("a worker refuses a port that is none, and says which of its flags have no effect", async () => {
  for (const port of ["0", "99999"]) {
    const refused = await lockstep("worker", "--coordinator", `127.0.0.1:${port}`);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /^E_USAGE: lockstep worker: the port of --coordinator must be /);
  }
  const nowhere = ["worker", "--use-cpu", "--coordinator", "127.0.0.1:1"];
  const plain = [...nowhere, "--reconnect-timeout-ms", "0", "--metrics-port", "null"];
  const quiet = await lockstep(...plain, "--tls-server-name=", "--name", "x");
  const told = await lockstep(
    ...[...plain, "--json-logs", "--tls-server-name", "lockstep"],
    ...["--http-token-file", "missing", "--http-without-tls"],
  );
  const flagsOf = (text: string): string[] =>
    [...text.matchAll(/warning: (--\S+) has no effect: /g)].map(([, flag]) => String(flag));
  assert.deepEqual(flagsOf(quiet.stdout), ["--tls-server-name"]);
  assert.deepEqual(flagsOf(told.stdout), [
    ...["--http-token-file", "--http-without-tls", "--tls-server-name", "--json-logs"],
  ]);
});

test("a name is likely if little differs, or if one of its words begins so", () => {
  for (const [typed, expected] of [
    ["trian", "train"],
    ["clasify", "classify"],
    ["merge", "merge-adapter"],
    ["gguf", "import-gguf"],
    ["eval", undefined],
    ["", undefined],
    ["w", undefined],
  ] as const) {
    assert.equal(likelyName(typed, names), expected, typed);
  }
});

test("npm run bench -- --help answers in a checkout where nothing is installed or built", async (t) => {
  const checkout = await mkdtemp(join(tmpdir(), "lockstep-bench-help-"));
  t.after(() => rm(checkout, { recursive: true, force: true }));
  await mkdir(join(checkout, "scripts"));
  for (const file of ["package.json", "scripts/bench.mjs"]) {
    await cp(join(packageRoot, file), join(checkout, file));
  }
  for (const flag of ["--help", "-h"]) {
    const args = ["run", "--silent", "bench", "--", flag];
    const { code, stdout, stderr } = await runProgram("npm", args, { cwd: checkout });
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^Usage: npm run bench -- \[NAME/);
  }
});
