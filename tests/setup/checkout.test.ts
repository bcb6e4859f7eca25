import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setUpCommand, setUpModels } from "#run/setup-models";
import { packageRoot } from "#lib/core/paths";

/** The bar for a set-up that has nothing to do. */
const MAX_WARM_SECONDS = 2;

// A checkout with one source file, its packages in place and an engine in its cache: what is left is the build.
let checkout: string;
let engineDir: string;

interface SetupModules {
  engine: { engineDirectory(cacheDir: string, spec: object): string };
  wheels: { ENGINE_WHEELS: { cpu: Record<string, object[]> }; TENSORFLOW_VERSION: string };
}

before(async () => {
  checkout = mkdtempSync(join(tmpdir(), "lockstep-checkout-"));
  cpSync(join(packageRoot, "scripts"), join(checkout, "scripts"), { recursive: true });
  const addon = { version: "9.9.9", integrity: "sha512-addon" };
  const packages = { "": {}, "node_modules/@tensorflow/tfjs-node-gpu": addon };
  cpSync(join(packageRoot, "bin"), join(checkout, "bin"), { recursive: true });
  const { engines } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
    engines: object;
  };
  write("package.json", JSON.stringify({ type: "module", engines }));
  write("package-lock.json", JSON.stringify({ packages }));
  write("node_modules/.package-lock.json", JSON.stringify({ packages }));
  write(
    "tsconfig.json",
    JSON.stringify({
      compilerOptions: { outDir: "dist", rootDir: ".", types: [] },
      include: ["lib"],
    }),
  );
  write("lib/one.ts", "export const one: number = 1;\n");
  symlinkSync(
    join(packageRoot, "node_modules/typescript"),
    join(checkout, "node_modules/typescript"),
  );
  // Only the name of the engine's directory counts here; engine.test.ts fills one.
  const { engine, wheels } = await setupModules();
  engineDir = engine.engineDirectory(join(checkout, "cache"), {
    flavour: "cpu",
    wheels: wheels.ENGINE_WHEELS.cpu[`${process.platform}-${process.arch}`],
    tensorflowVersion: wheels.TENSORFLOW_VERSION,
    addonVersion: addon.version,
    addonIntegrity: addon.integrity,
  });
  mkdirSync(engineDir, { recursive: true });
  writeFileSync(join(engineDir, "tfjs_binding.node"), "");
});
after(() => rmSync(checkout, { recursive: true, force: true }));

async function setupModules(): Promise<SetupModules> {
  const load = async (name: string): Promise<unknown> =>
    import(join(packageRoot, "scripts", "setup", name));
  return {
    engine: (await load("engine.mjs")) as SetupModules["engine"],
    wheels: (await load("engine-wheels.mjs")) as SetupModules["wheels"],
  };
}

function write(path: string, text: string): void {
  mkdirSync(join(checkout, path, ".."), { recursive: true });
  writeFileSync(join(checkout, path), text);
}

function setUp(env: NodeJS.ProcessEnv = {}): {
  status: number | null;
  output: string;
  seconds: number;
} {
  const startedAt = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, ["scripts/setup.mjs", "--cpu"], {
    cwd: checkout,
    env: { ...process.env, LOCKSTEP_CACHE: join(checkout, "cache"), ...env },
    encoding: "utf8",
  });
  return { status, output: stdout + stderr, seconds: (performance.now() - startedAt) / 1000 };
}

test("the second set-up does nothing and says so within two seconds", () => {
  const first = setUp();
  assert.equal(first.status, 0, first.output);
  assert.match(first.output, /setup: building/);
  assert.ok(existsSync(join(checkout, "dist/lib/one.js")));
  assert.ok(existsSync(join(checkout, "dist/engine/tfjs_binding.node")));

  // The quickest of some: of one alone, another program's work would be part.
  const seconds = [1, 2, 3].map(() => {
    const again = setUp();
    assert.equal(again.status, 0, again.output);
    assert.match(again.output, /^setup: ready after [\d.]+ s \(cpu engine, TensorFlow [\d.]+\)\n$/);
    return again.seconds;
  });
  assert.ok(Math.min(...seconds) < MAX_WARM_SECONDS, `${seconds.join(", ")} s`);
});

test("a changed source is built again, a deleted one leaves no output", () => {
  assert.equal(setUp().status, 0);
  write("lib/two.ts", "export const two: number = 2;\n");
  assert.match(setUp().output, /setup: building/);
  assert.ok(existsSync(join(checkout, "dist/lib/two.js")));
  rmSync(join(checkout, "lib/two.ts"));
  assert.match(setUp().output, /setup: building/);
  assert.ok(!existsSync(join(checkout, "dist/lib/two.js")));
  utimesSync(join(checkout, "lib/one.ts"), new Date(), new Date(0));
  assert.match(setUp().output, /setup: building/);
});

test("a type error fails the set-up and is shown, and the next set-up tries again", () => {
  write("lib/wrong.ts", 'export const wrong: number = "text";\n');
  for (let attempt = 0; attempt < 2; attempt++) {
    const { status, output } = setUp();
    assert.equal(status, 1);
    assert.match(output, /lib\/wrong\.ts\(1,14\): error TS2322/);
  }
  rmSync(join(checkout, "lib/wrong.ts"));
  assert.equal(setUp().status, 0);
});

test("what the machine lacks is named in one line before anything starts", () => {
  const emptyCache = join(checkout, "empty-cache");
  const { status, output } = setUp({ PATH: "/nowhere", LOCKSTEP_CACHE: emptyCache, CXX: "" });
  assert.equal(status, 1);
  assert.equal(
    output,
    "setup: missing on this machine: npm; python3 with pip; g++ (Debian: apt install g++)\n",
  );
  assert.ok(!existsSync(emptyCache));
});

test("names of models follow --model, and an unknown one is refused with those that there are", () => {
  const refused = (...args: string[]): string => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/setup.mjs", ...args], {
      cwd: checkout,
      encoding: "utf8",
    });
    assert.equal(status, 1);
    return stderr;
  };
  assert.match(
    refused("--model", "all-MiniLM"),
    /no model all-MiniLM to bring; there are SmolLM2-135M-Instruct, all-MiniLM-L6-v2/,
  );
  assert.match(refused("all-MiniLM-L6-v2"), /names of models follow --model/);
});

test("the models that an error names are those that the set-up brings", async () => {
  const { MODELS } = (await import(join(packageRoot, "scripts/setup/model.mjs"))) as {
    MODELS: Record<string, unknown>;
  };
  assert.deepEqual(setUpModels, Object.keys(MODELS));
  assert.equal(setUpCommand("SmolLM2-135M-Instruct"), "node scripts/setup.mjs --model");
  assert.equal(setUpCommand("all-MiniLM-L6-v2"), "node scripts/setup.mjs --model all-MiniLM-L6-v2");
  assert.equal(setUpCommand("gpt2"), undefined);
});

test("a fresh clone says what to type, and so does a run whose model the set-up would bring", () => {
  const clone = join(checkout, "clone");
  for (const name of ["bin", "package.json"]) {
    cpSync(join(packageRoot, name), join(clone, name), { recursive: true });
  }
  const typed = (root: string, ...args: string[]): string => {
    const command = [join(root, "bin/lockstep"), ...args];
    const env = { ...process.env, LOCKSTEP_CACHE: join(checkout, "empty-cache") };
    const { stderr } = spawnSync(process.execPath, command, { cwd: root, env, encoding: "utf8" });
    return stderr;
  };
  const setUpThere = join(clone, "scripts/setup.mjs");
  assert.equal(typed(clone, "--help"), `lockstep: not set up yet; run: node ${setUpThere}\n`);
  write("clone/dist/cli/main.js", "");
  assert.equal(
    typed(clone, "config"),
    `lockstep: npm packages are missing; run: node ${setUpThere}\n`,
  );
  assert.match(
    typed(packageRoot, "config", "examples/classifier.yaml"),
    /no model all-MiniLM-L6-v2: .*; `node scripts\/setup\.mjs --model all-MiniLM-L6-v2` brings it\.$/m,
  );
});

test("an unknown flag is refused", () => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/setup.mjs", "--gpus"], {
    cwd: checkout,
    encoding: "utf8",
  });
  assert.equal(status, 1);
  assert.match(stderr, /--gpus/);
});
