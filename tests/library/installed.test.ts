import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "#lib/core/paths";
import { writeTinyChatModel } from "#tests/support/named-models";
import { blocksOf } from "#tests/support/page-blocks";

// The package as npm makes it, installed into an empty project: what docs/library.md tells to type and shows.

const page = "docs/library.md";
const run = promisify(execFile);
const tsc = join(packageRoot, "node_modules/typescript/bin/tsc");

let directory = "";
let project = "";
const path = (...parts: string[]): string => join(project, ...parts);

const inProject = async (command: string, ...args: string[]) =>
  run(command, args, { cwd: project, maxBuffer: 1 << 24 });

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-library-"));
  project = join(directory, "project");
  await mkdir(project);
  await run("npm", ["pack", "--pack-destination", directory], { cwd: packageRoot });
  await writeFile(path("package.json"), JSON.stringify({ private: true, type: "module" }));
  const { devDependencies } = JSON.parse(
    readFileSync(join(packageRoot, "package.json"), "utf8"),
  ) as { devDependencies: Record<string, string> };
  const packed = (await readdir(directory)).find((name) => /^lockstep-.*\.tgz$/.test(name)) ?? "";
  await inProject(
    "npm",
    ...["install", "--prefer-offline", "--no-audit", "--no-fund", join(directory, packed)],
    `@types/node@${devDependencies["@types/node"]}`,
  );
  await writeTinyChatModel(path("my-model"));
  const chats = [3, 4, 5, 6, 7, 8].map((hour) => ({
    messages: [
      { role: "user", content: `Open at ${hour}?` },
      { role: "assistant", content: hour < 6 ? "No." : "Yes." },
    ],
  }));
  await writeFile(path("chats.jsonl"), chats.map((chat) => JSON.stringify(chat)).join("\n"));
  const tickets = [
    "A flat tyre,wheel",
    "The rim is bent,wheel",
    "No brakes,brake",
    "It squeals,brake",
  ];
  await writeFile(path("tickets.csv"), ["text,label", ...tickets].join("\n"));
});

after(() => rm(directory, { recursive: true, force: true }));

test("an installed lockstep says what brings its engine, and that brings it", async () => {
  assert.ok(!existsSync(path("node_modules/@tensorflow/tfjs-node-gpu")));
  const bin = path("node_modules/.bin/lockstep");
  assert.match((await inProject(bin, "--version")).stdout, /^\d+\.\d+\.\d+\n$/);
  await assert.rejects(inProject(bin, "generate", "my-model", "--prompt", "One"), {
    stderr: "lockstep: the engine is not installed; run: npx lockstep setup\n",
  });
  await inProject(bin, "setup", "--cpu");
  const { stdout } = await inProject(bin, "generate", "my-model", "--prompt", "One");
  assert.match(stdout, /\S/);
});

/** What each program of the page prints, and nothing else. */
const printed: readonly (readonly RegExp[])[] = [
  [
    /^step 1: loss \d+\.\d+$/,
    /^step 2: loss \d+\.\d+$/,
    /^answer: /,
    /^finished: masters [0-9a-f]{64}$/,
    /^class: \w+( > \w+)+$/,
  ],
  [
    /^interrupted, goes on from runs\/stopped\/checkpoint-\d+$/,
    /^E_CONFIG_UNKNOWN_KEY: .*max_step\b.*max_steps/,
  ],
  [/^weights: \d+, float32$/, /^tokens: \d+$/],
];

test("the programs of the page are typed strictly, and run", async () => {
  const programs = blocksOf(page).filter(({ language }) => language === "ts");
  assert.equal(programs.length, printed.length);
  const names = programs.map((_, index) => `program-${index + 1}`);
  for (const [index, { text }] of programs.entries()) {
    await writeFile(path(`${names[index]}.ts`), text);
  }
  const options = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    ...{ module: "nodenext", target: "es2022", types: ["node"], skipLibCheck: false },
  };
  await writeFile(
    path("tsconfig.json"),
    JSON.stringify({ compilerOptions: options, files: names.map((name) => `${name}.ts`) }),
  );
  await inProject(process.execPath, tsc, "-p", ".").catch((error: { stdout: string }) =>
    assert.fail(error.stdout),
  );
  for (const [index, name] of names.entries()) {
    const { text } = programs[index] ?? { text: "" };
    const numStatements = text.split("\n").filter((line) => /^[^/]*\w/.test(line)).length;
    assert.ok(numStatements < 30, `${name} has ${numStatements} lines`);
    const { stdout, stderr } = await inProject(process.execPath, `${name}.js`);
    // TensorFlow's own, when it is loaded.
    const ours = stderr.split("\n").filter((line) => !/^(WARNING: All log|I0000|$)/.test(line));
    assert.deepEqual(ours, []);
    const lines = stdout.trimEnd().split("\n");
    const expected = printed[index] ?? [];
    assert.equal(lines.length, expected.length, stdout);
    for (const [i, pattern] of expected.entries()) assert.match(lines[i] ?? "", pattern);
  }
});
