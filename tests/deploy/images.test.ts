import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import {
  isInContext,
  parseCopy,
  parseDockerfile,
  parseExec,
  parseRun,
  type Stage,
} from "#tests/support/dockerfile";
import { runProgram } from "#tests/support/run-program";

const folder = join(packageRoot, "deploy", "docker");
const dockerignore = readFileSync(join(packageRoot, ".dockerignore"), "utf8");
const images = readdirSync(folder).map((file) => ({
  file,
  stages: parseDockerfile(readFileSync(join(folder, file), "utf8")),
}));

const { NODE_RELEASES } = (await import(join(packageRoot, "scripts/setup/node-releases.mjs"))) as {
  NODE_RELEASES: { x64: Record<string, { version: string }> };
};

/** What the base image and the packages that a stage installs bring. */
const basePrograms = new Set(["apt-get", "chown", "find", "mkdir", "node", "npm", "rm"]);
const packageJson = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
  version: string;
};

function lastOf(stage: Stage, keyword: string): string {
  const text = stage.instructions.findLast((i) => i.keyword === keyword)?.text;
  assert.ok(text !== undefined, `no ${keyword}`);
  return text;
}

/** Absolute paths that a stage holds below its working directory, as its instructions make them. */
function contents(stage: Stage): Set<string> {
  const paths = new Set<string>();
  let workdir = "/";
  for (const { keyword, text } of stage.instructions) {
    if (keyword === "WORKDIR") workdir = posix.resolve(workdir, text);
    if (keyword === "COPY") {
      const { sources, destination } = parseCopy(text);
      const target = posix.resolve(workdir, destination);
      const intoFolder = destination.endsWith("/") || sources.length > 1;
      for (const source of sources) {
        paths.add(intoFolder ? posix.join(target, posix.basename(source)) : target);
      }
    }
    if (keyword === "RUN") {
      for (const command of parseRun(text)) {
        if (command.startsWith("npm ci")) paths.add(posix.join(workdir, "node_modules"));
        if (/^node scripts\/(build|setup)\.mjs/.test(command)) {
          paths.add(posix.join(workdir, "dist"));
        }
        const cache = stage.instructions.find(({ keyword }) => keyword === "ENV")?.text;
        if (command.startsWith("node scripts/setup.mjs")) {
          paths.add(`${/LOCKSTEP_CACHE=(\S+)/.exec(cache ?? "")?.[1]}/engine`);
        }
      }
    }
  }
  return paths;
}

test("the three images are there", () => {
  assert.deepEqual(images.map(({ file }) => file).sort(), [
    "coordinator.Dockerfile",
    "worker-cuda.Dockerfile",
    "worker.Dockerfile",
  ]);
});

for (const { file, stages } of images) {
  test(`${file}: two stages from a pinned image, the newest Node that tests train with`, () => {
    assert.equal(stages.length, 2);
    const { version } = Object.values(NODE_RELEASES.x64).at(-1) ?? {};
    for (const { image } of stages) assert.equal(image, `node:${version}-bookworm-slim`);
  });

  test(`${file}: every path that is copied exists where it is copied from`, () => {
    for (const stage of stages) {
      for (const { keyword, text } of stage.instructions) {
        if (keyword !== "COPY") continue;
        const { from, sources, destination } = parseCopy(text);
        if (from === undefined) {
          for (const source of sources) {
            const path = join(packageRoot, source);
            assert.ok(existsSync(path), `${source} does not exist`);
            assert.ok(isInContext(dockerignore, source), `.dockerignore leaves ${source} out`);
            // COPY of a folder copies what is in it: without a folder's name as destination the
            // files would land loose.
            if (statSync(path).isDirectory()) assert.equal(destination, `./${source}`);
          }
        } else {
          const origin = stages.find(({ name }) => name === from);
          assert.ok(origin !== undefined, `no stage ${from}`);
          const made = contents(origin);
          for (const source of sources) assert.ok(made.has(source), `${from} makes no ${source}`);
        }
      }
    }
  });

  test(`${file}: every command that is run exists`, () => {
    for (const stage of stages) {
      const copied = contents(stage);
      let workdir = "/";
      for (const { keyword, text } of stage.instructions) {
        if (keyword === "WORKDIR") workdir = text;
        if (keyword !== "RUN") continue;
        for (const command of parseRun(text)) {
          const [program = "", argument = ""] = command.split(/\s+/);
          assert.ok(basePrograms.has(program), `unknown program: ${command}`);
          if (program !== "node") continue;
          assert.ok(existsSync(join(packageRoot, argument)), `${argument} does not exist`);
          const top = posix.join(workdir, argument.split("/")[0] ?? "");
          assert.ok(copied.has(top), `${argument} runs but is not copied`);
        }
      }
    }
  });

  test(`${file}: the last stage runs Lockstep as an ordinary user, with a health check`, () => {
    const last = stages.at(-1);
    assert.ok(last !== undefined);
    assert.equal(lastOf(last, "USER"), "1000:1000");
    const afterUser = last.instructions.slice(
      last.instructions.findIndex(({ keyword }) => keyword === "USER"),
    );
    assert.ok(!afterUser.some(({ keyword }) => keyword === "RUN" || keyword === "COPY"));
    const entry = parseExec(lastOf(last, "ENTRYPOINT"));
    assert.deepEqual(entry.slice(0, 2), ["node", "bin/lockstep"]);
    assert.ok(contents(last).has("/app/bin") && contents(last).has("/app/dist"));
    const health = lastOf(last, "HEALTHCHECK");
    assert.match(health, /127\.0\.0\.1:9464\/healthz/);
    assert.equal(parseExec(health)[0], "node");
    assert.match(lastOf(last, "EXPOSE"), /\b9464\b/);
    for (const name of ["test", "bench", "typescript"]) {
      assert.ok(!contents(last).has(`/app/${name}`));
    }
  });

  test(`${file}: development packages stay behind`, () => {
    const build = stages[0];
    assert.ok(build !== undefined);
    const commands = build.instructions
      .filter(({ keyword }) => keyword === "RUN")
      .flatMap(({ text }) => parseRun(text));
    const pruned = commands.findIndex((command) => command.startsWith("npm prune --omit=dev"));
    const built = commands.findIndex((command) => /scripts\/(build|setup)\.mjs/.test(command));
    assert.ok(built >= 0 && pruned > built, "pruned before the build that needs them");
  });
}

test("the coordinator's image holds no TensorFlow, the workers' do", () => {
  for (const { file, stages } of images) {
    const commands = stages.flatMap((stage) =>
      stage.instructions
        .filter(({ keyword }) => keyword === "RUN")
        .flatMap(({ text }) => parseRun(text)),
    );
    if (file === "coordinator.Dockerfile") {
      assert.ok(commands.includes("rm -rf node_modules/@tensorflow"));
      assert.ok(!commands.some((command) => /setup\.mjs|pip|g\+\+/.test(command)));
    } else {
      const flag = file === "worker-cuda.Dockerfile" ? "--gpu" : "--cpu";
      assert.ok(commands.includes(`node scripts/setup.mjs ${flag}`));
      // The links in node_modules are absolute.
      const engine = stages[1]?.instructions.find(({ text }) => text.includes("/engine"))?.text;
      assert.equal(engine, "--from=build /opt/lockstep/engine /opt/lockstep/engine");
    }
  }
});

test("of the tokenizer's binaries the images keep those for their system", async () => {
  const folder = "node_modules/tokenizers";
  const names = readdirSync(join(packageRoot, folder));
  for (const { stages } of images) {
    const command = (stages[0] as Stage).instructions
      .filter(({ keyword }) => keyword === "RUN")
      .flatMap(({ text }) => parseRun(text))
      .find((each) => each.startsWith(`find ${folder}`));
    assert.ok(command !== undefined);
    const directory = await mkdtemp(join(tmpdir(), "lockstep-image-"));
    try {
      mkdirSync(join(directory, folder), { recursive: true });
      for (const name of names) await writeFile(join(directory, folder, name), "");
      const { code, stderr } = await runProgram("sh", ["-c", command], { cwd: directory });
      assert.equal(code, 0, stderr);
      const kept = names.filter(
        (name) => !name.endsWith(".node") || /^tokenizers\.linux-(x64|arm64)-gnu\.node$/.test(name),
      );
      assert.ok(kept.length < names.length && kept.includes("tokenizers.linux-x64-gnu.node"));
      assert.deepEqual(readdirSync(join(directory, folder)), kept);
    } finally {
      await rm(directory, { recursive: true });
    }
  }
});

test("every source folder that the build compiles is copied, save what only tests use", async () => {
  const tsconfig = JSON.parse(readFileSync(join(packageRoot, "tsconfig.json"), "utf8")) as {
    include: string[];
  };
  const product = tsconfig.include.filter((name) => !["tests", "bench", "grafana"].includes(name));
  for (const { file, stages } of images) {
    const made = contents(stages[0] as Stage);
    for (const name of product) assert.ok(made.has(`/app/${name}`), `${file} lacks ${name}`);
  }
});

test("image tags in the manifests are the package's version", () => {
  for (const path of ["base", "overlays/cpu", "files"]) {
    const text = readFileSync(
      join(packageRoot, "deploy", "kustomize", path, "kustomization.yaml"),
      "utf8",
    );
    const tags = [...text.matchAll(/newTag: (\S+)/g)].map((match) => match[1]);
    assert.ok(tags.length > 0);
    for (const tag of tags) assert.equal(tag, packageJson.version);
  }
});

test("the .dockerignore reader knows the last match", () => {
  const text = "*\n!lib\n**/node_modules\n";
  assert.equal(isInContext(text, "lib/core/a.ts"), true);
  assert.equal(isInContext(text, "runs/model"), false);
  assert.equal(isInContext(text, "lib/node_modules/x"), false);
  assert.equal(isInContext(text, "node_modules"), false);
  assert.equal(isInContext(dockerignore, "tests/fixtures"), false);
  assert.equal(isInContext(dockerignore, ".git/config"), false);
});
