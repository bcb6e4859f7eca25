import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { usages } from "#cli/usage";
import { packageRoot } from "#lib/core/paths";
import { build, conforms, Manifests } from "#tests/support/manifests";
import { needs } from "#tests/support/tools";

const tools = needs("kustomize", "kubeconform", "kubernetesSchemas");

test("the reducers' manifests conform, and a misspelt field does not", tools, async () => {
  const yaml = await build("reducers");
  const { ok, output } = await conforms(yaml);
  assert.ok(ok, output);
  for (const [field, misspelt] of [
    ["completionMode:", "completionModus:"],
    ["policyTypes:", "policyType:"],
    ["publishNotReadyAddresses:", "publishNotReadyAddress:"],
  ] as const) {
    const broken = yaml.replace(field, misspelt);
    assert.notEqual(broken, yaml, field);
    assert.equal((await conforms(broken)).ok, false, misspelt);
  }
});

test("reducers end with their run, and the page names every one of them", tools, async () => {
  const manifests = new Manifests(await build("reducers"));
  const { spec } = manifests.get("Job", "lockstep-reducer");
  assert.equal(spec.completions, spec.parallelism);
  // Nobody comes back to a run that failed: a pod that waited in vain is not replaced for ever.
  const ignored = spec.podFailurePolicy?.rules.flatMap(({ onExitCodes }) => onExitCodes?.values);
  assert.deepEqual(ignored?.filter(Boolean), [143]);
  const { command, args = [], ports = [], volumeMounts = [] } = manifests.container("reducer");
  assert.deepEqual(command, ["node", "bin/lockstep", "reducer"]);
  for (const arg of args) {
    const [option = ""] = arg.split("=");
    assert.ok(usages.reducer.includes(`${option} `), `${option} is no option of lockstep reducer`);
  }
  const port = ports.find(({ name }) => name === "reducer")?.containerPort;
  assert.ok(args.includes(`--listen=0.0.0.0:${port}`));
  const page = await readFile(join(packageRoot, "docs/running-on-kubernetes.md"), "utf8");
  const named = [...page.matchAll(/- (lockstep-reducer-\d+\.lockstep-reducer:\d+)\n/g)];
  assert.deepEqual(
    named.map(([, address]) => address),
    Array.from(
      { length: spec.completions ?? 0 },
      (_, index) => `lockstep-reducer-${index}.lockstep-reducer:${port}`,
    ),
  );
  for (const name of ["lockstep-reducer", "lockstep-to-reducers"]) {
    const { spec: policy } = manifests.get("NetworkPolicy", name);
    const { ingress = [], egress = [] } = policy;
    const rules = name === "lockstep-reducer" ? ingress : egress;
    assert.deepEqual(rules[0]?.ports, [{ protocol: "TCP", port }]);
    // A mirror fetches from the shard.
    assert.match(JSON.stringify(policy), /"values":\["coordinator","worker","reducer"\]/);
  }
  // What is read and what a shard writes of a checkpoint is under the paths of the coordinator.
  const base = new Manifests(await build("base")).container("coordinator");
  const dataOf = (mounts: typeof volumeMounts): string | undefined =>
    mounts.find(({ name }) => name === "data")?.mountPath;
  assert.equal(dataOf(volumeMounts), dataOf(base.volumeMounts ?? []));
  const data = volumeMounts.find(({ name }) => name === "data");
  assert.ok(data !== undefined && !("readOnly" in data));
  // As those that write the same directories.
  const coordinator = new Manifests(await build("base")).pod("coordinator");
  assert.deepEqual(manifests.pod("reducer").securityContext, coordinator.securityContext);
});
