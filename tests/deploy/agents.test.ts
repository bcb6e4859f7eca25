import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { usages } from "#cli/usage";
import { packageRoot } from "#lib/core/paths";
import { parseNatsUrl } from "#lib/wire/nats/servers";
import { build, conforms, type PodSpec } from "#tests/support/manifests";
import { runProgram } from "#tests/support/run-program";
import { needs } from "#tests/support/tools";
import { parse } from "yaml";

const tools = needs("kustomize", "kubeconform", "kubernetesSchemas");

async function agents(): Promise<PodSpec> {
  const manifest = parse(await build("agents")) as {
    readonly kind: string;
    readonly spec: { readonly template: { readonly spec: PodSpec } };
  };
  assert.equal(manifest.kind, "Deployment");
  return manifest.spec.template.spec;
}

test("the agents' manifest conforms, and a misspelt field does not", tools, async () => {
  const yaml = await build("agents");
  const { ok, output } = await conforms(yaml);
  assert.ok(ok, output);
  const broken = yaml.replace("terminationGracePeriodSeconds:", "terminationGraceSeconds:");
  assert.notEqual(broken, yaml);
  assert.equal((await conforms(broken)).ok, false);
});

test("an agent's pod lets a run end, and its paths lie on volumes", tools, async () => {
  const { terminationGracePeriodSeconds, containers, volumes } = await agents();
  const [agent] = containers;
  assert.ok(agent !== undefined);
  const { args = [], volumeMounts = [] } = agent;
  assert.deepEqual(agent.command, ["node", "bin/lockstep", "agent"]);
  const value = (option: string): string =>
    args.find((arg) => arg.startsWith(`${option}=`))?.slice(option.length + 1) ?? "";
  for (const arg of args) {
    const [option = ""] = arg.split("=");
    assert.ok(usages.agent.includes(`${option} `), `${option} is no option of lockstep agent`);
  }
  // Then a run that did not end is killed, and the job given back.
  const graceSeconds = Number(value("--grace-ms")) / 1_000;
  assert.ok(graceSeconds > 0 && graceSeconds + 10 <= terminationGracePeriodSeconds);
  assert.ok(parseNatsUrl(value("--nats-url")).isTls);
  const mountOf = (path: string): string =>
    volumeMounts.find(({ mountPath }) => path.startsWith(`${mountPath}/`))?.name ?? "";
  assert.equal(mountOf(value("--work-dir")), "jobs");
  const files = ["--nats-credentials-file", "--nats-tls-ca-file"].map(value);
  for (const file of files) assert.equal(mountOf(file), "nats", file);
  assert.deepEqual(
    volumeMounts.map(({ name }) => name).sort(),
    volumes.map(({ name }) => name).sort(),
  );
});

test("the command takes the manifest's options", tools, async () => {
  const { containers } = await agents();
  const args = containers[0]?.args ?? [];
  // The files are none of this machine: reading the first of them is as far as it comes.
  const { code, stderr } = await runProgram(process.execPath, [
    ...[join(packageRoot, "bin/lockstep"), "agent", ...args],
  ]);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /^E_FILE_NOT_FOUND: .*\/etc\/lockstep\/nats\/agent\.creds/);
});
