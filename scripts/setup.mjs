// Makes a fresh checkout ready: npm packages, the engine, the build, and on request the base model of the
// quick start and the tools that only tests use. Does only what is not done yet.
//
//   node scripts/setup.mjs [--gpu | --cpu] [--model] [--test] [--python]
//
// --gpu    the CUDA engine even if no GPU is visible here; --cpu the CPU engine even if one is
// --model  also fetch and import the base model
// --test   also the test tools; a missing one is an error when CI=true and a warning elsewhere
// --python also torch, transformers and peft, which tests of files and numbers compare with (6 GB); with
//          --test and CI=true they are installed unasked

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "./build/build.mjs";
import { cacheRoot } from "./setup/cache.mjs";
import { elapsedSeconds, SetupError, say } from "./setup/console.mjs";
import { engineDirectory, installEngine, linkEngine } from "./setup/engine.mjs";
import { ENGINE_WHEELS, TENSORFLOW_VERSION } from "./setup/engine-wheels.mjs";
import { withLock } from "./setup/lock.mjs";
import { fetchModel, ggufPath, importModel, modelDirectory } from "./setup/model.mjs";
import { installNpmPackages, lockedPackage } from "./setup/npm-packages.mjs";
import { installPeers } from "./setup/peers.mjs";
import { checkRequirements, hasNvidiaGpu } from "./setup/requirements.mjs";
import { installTestTools } from "./setup/test-tools.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

async function main() {
  const { values: flags } = parseArgs({
    options: {
      gpu: { type: "boolean", default: false },
      cpu: { type: "boolean", default: false },
      model: { type: "boolean", default: false },
      test: { type: "boolean", default: false },
      python: { type: "boolean", default: false },
    },
  });
  const cacheDir = cacheRoot();
  const spec = engineSpec(flags);
  const nodeModulesDir = join(root, "node_modules");
  const needsEngine = !existsSync(engineDirectory(cacheDir, spec));
  const needsModel = flags.model && !existsSync(modelDirectory(cacheDir));
  checkRequirements({
    pip: needsEngine || (needsModel && !existsSync(ggufPath(cacheDir))),
    compiler: needsEngine,
  });
  // Two set-ups of one checkout would otherwise install into the same node_modules.
  await withLock(join(root, "dist", ".setup.lock"), async () => {
    await installNpmPackages(root);
    linkEngine(await installEngine(cacheDir, spec, nodeModulesDir), nodeModulesDir);
    if (needsModel) await fetchModel(cacheDir);
    await build(root);
    if (needsModel) await importModel(root, cacheDir);
    if (flags.test) await installTestTools(root, cacheDir);
    if (flags.python || (flags.test && process.env.CI === "true")) {
      await installPeers(root, cacheDir);
    }
  });
  say(
    `ready after ${elapsedSeconds()} s (${spec.flavour} engine, TensorFlow ${TENSORFLOW_VERSION})`,
  );
}

function engineSpec(flags) {
  const flavour = flags.gpu || (!flags.cpu && hasNvidiaGpu()) ? "cuda" : "cpu";
  const platform = `${process.platform}-${process.arch}`;
  const wheels = ENGINE_WHEELS[flavour][platform];
  if (wheels === undefined) {
    const known = Object.keys(ENGINE_WHEELS[flavour]).join(", ");
    throw new SetupError(
      `no ${flavour} engine is published for ${platform}; there is one for ${known}`,
    );
  }
  const addon = lockedPackage(root, "@tensorflow/tfjs-node-gpu");
  return {
    flavour,
    wheels,
    tensorflowVersion: TENSORFLOW_VERSION,
    addonVersion: addon.version,
    addonIntegrity: addon.integrity,
  };
}

try {
  await main();
} catch (error) {
  const isExpected = error instanceof SetupError || error?.code?.startsWith?.("ERR_PARSE_ARGS");
  process.stderr.write(`setup: ${isExpected ? error.message : error.stack}\n`);
  process.exitCode = 1;
}
