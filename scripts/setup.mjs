// Makes a fresh checkout ready: npm packages, the engine, the build, and on request the base model of the
// quick start or another one, and the tools that only tests use. Does only what is not done yet. Where npm has
// installed the package, the engine and models are what is left to bring.
//
//   node scripts/setup.mjs [--gpu | --cpu] [--model [NAME ...]] [--test] [--python]
//   npx lockstep setup [--gpu | --cpu] [--model [NAME ...]]
//
// --gpu    the CUDA engine even if no GPU is visible here; --cpu the CPU engine even if one is
// --model  also fetch these models, that of the quick start where none is named; all-MiniLM-L6-v2 is the
//          one of examples/classifier.yaml
// --test   also the test tools; a missing one is an error when CI=true and a warning elsewhere
// --python also torch, transformers and peft, which tests of files and numbers compare with (6 GB); with
//          --test and CI=true they are installed unasked

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "./build/build.mjs";
import { addonSource, headersDirectory, isCheckout } from "./setup/addon-source.mjs";
import { cacheRoot } from "./setup/cache.mjs";
import { elapsedSeconds, SetupError, say } from "./setup/console.mjs";
import { engineDirectory, installEngine, linkEngine } from "./setup/engine.mjs";
import { ENGINE_WHEELS, TENSORFLOW_VERSION } from "./setup/engine-wheels.mjs";
import { withLock } from "./setup/lock.mjs";
import { modelDirectory, MODELS } from "./setup/model.mjs";
import { installNpmPackages } from "./setup/npm-packages.mjs";
import { installPeers } from "./setup/peers.mjs";
import { checkRequirements, hasNvidiaGpu } from "./setup/requirements.mjs";
import { installTestTools } from "./setup/test-tools.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const USAGE = `Usage: npx lockstep setup [--gpu | --cpu] [--model [NAME ...]]
       node scripts/setup.mjs [--gpu | --cpu] [--model [NAME ...]] [--test] [--python]

Brings the engine, which is compiled for this machine once, and with --model models; in a checkout also the
npm packages, the build, and with --test and --python what only tests need.
`;

async function main() {
  const { values: flags, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", short: "h", default: false },
      gpu: { type: "boolean", default: false },
      cpu: { type: "boolean", default: false },
      model: { type: "boolean", default: false },
      test: { type: "boolean", default: false },
      python: { type: "boolean", default: false },
    },
  });
  if (flags.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (!isCheckout(root) && (flags.test || flags.python)) {
    throw new SetupError("--test and --python are for a checkout, whose tests need them");
  }
  const cacheDir = cacheRoot();
  const spec = engineSpec(flags);
  const needsEngine = !existsSync(engineDirectory(cacheDir, spec));
  const missing = modelsOf(flags, positionals).filter(
    (name) => !existsSync(modelDirectory(cacheDir, name)),
  );
  checkRequirements({
    pip: needsEngine || missing.some((name) => !MODELS[name].isFetched(cacheDir)),
    compiler: needsEngine,
  });
  // Two set-ups of one checkout would otherwise install into the same node_modules.
  await withLock(join(root, "dist", ".setup.lock"), async () => {
    if (isCheckout(root)) await installNpmPackages(root);
    const sources = () => ({
      addonDir: addonSource(root).directory,
      headersDir: headersDirectory(root),
    });
    linkEngine(await installEngine(cacheDir, spec, sources), root);
    for (const name of missing) await MODELS[name].fetch(cacheDir);
    if (isCheckout(root)) await build(root);
    for (const name of missing) await MODELS[name].place(root, cacheDir);
    if (flags.test) await installTestTools(root, cacheDir);
    if (flags.python || (flags.test && process.env.CI === "true")) {
      await installPeers(root, cacheDir);
    }
  });
  say(
    `ready after ${elapsedSeconds()} s (${spec.flavour} engine, TensorFlow ${TENSORFLOW_VERSION})`,
  );
}

/** The models that are asked for: names follow --model. */
function modelsOf(flags, names) {
  if (!flags.model && names.length > 0) {
    throw new SetupError(`unexpected argument ${names[0]}; names of models follow --model`);
  }
  const known = Object.keys(MODELS);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new SetupError(`there is no model ${unknown} to bring; there are ${known.join(", ")}`);
  }
  if (!flags.model) return [];
  return names.length > 0 ? names : known.slice(0, 1);
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
  const addon = addonSource(root);
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
