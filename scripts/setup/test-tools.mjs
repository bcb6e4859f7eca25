// Programs that only tests use. Nothing here runs as a service: each is a file that a test starts and stops.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { installChromium } from "./chromium.mjs";
import { SetupError, say, warn } from "./console.mjs";
import { goInstall } from "./go.mjs";
import { installKubernetesSchemas } from "./kubernetes-schemas.mjs";
import { installNodes, nodeNames } from "./node-releases.mjs";
import { installLlamaCpp } from "./llama-cpp.mjs";
import { installNatsServer } from "./nats.mjs";
import { installPrometheus } from "./prometheus.mjs";

const TOOL_NAMES = [
  "promtool",
  "prometheus",
  "kubeconform",
  "kustomize",
  "gofakes3",
  "kubernetesSchemas",
  "chromium",
  "llamaCpp",
  "natsServer",
  ...nodeNames,
];

/**
 * Finds or installs every tool and writes dist/test-tools.json: absolute paths by name, null for a tool
 * that could not be had. A missing one is an error when CI=true.
 *
 * @param {string} root
 * @param {string} cacheDir
 */
export async function installTestTools(root, cacheDir) {
  const listFile = join(root, "dist", "test-tools.json");
  if (isComplete(listFile)) return;
  const tools = {};
  const missing = [];
  const attempt = async (names, install) => {
    try {
      Object.assign(tools, await install());
    } catch (error) {
      for (const name of names) tools[name] = null;
      missing.push(`${names.join(" and ")}: ${error.message}`);
    }
  };
  await attempt(["promtool", "prometheus"], () => installPrometheus(cacheDir));
  await attempt(["kubeconform"], () =>
    goInstall(cacheDir, "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"),
  );
  await attempt(["kustomize"], () =>
    goInstall(cacheDir, "kustomize", "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"),
  );
  await attempt(["gofakes3"], () =>
    goInstall(cacheDir, "gofakes3", "github.com/johannesboyne/gofakes3/cmd/gofakes3@v1.2.0"),
  );
  await attempt(["kubernetesSchemas"], () => installKubernetesSchemas(cacheDir));
  await attempt(["chromium"], () => installChromium());
  await attempt(["llamaCpp"], () => installLlamaCpp(cacheDir));
  await attempt(["natsServer"], () => installNatsServer(cacheDir));
  await attempt(nodeNames, () => installNodes(cacheDir));
  writeList(listFile, tools);
  if (missing.length === 0) return say("test tools are in place");
  if (process.env.CI === "true") {
    throw new SetupError(
      `test tools are missing, and CI=true requires them:\n  ${missing.join("\n  ")}`,
    );
  }
  for (const line of missing) warn(`tests that need it will be skipped: ${line}`);
}

function isComplete(listFile) {
  try {
    const paths = JSON.parse(readFileSync(listFile, "utf8"));
    return TOOL_NAMES.every((name) => typeof paths[name] === "string" && existsSync(paths[name]));
  } catch {
    return false;
  }
}

function writeList(listFile, tools) {
  mkdirSync(join(listFile, ".."), { recursive: true });
  const temporary = `${listFile}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(tools, null, 2)}\n`);
  renameSync(temporary, listFile);
}
