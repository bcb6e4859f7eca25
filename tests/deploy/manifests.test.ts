import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { parseConfigText } from "#lib/core/config/yaml-file";
import { resolveConfig } from "#lib/core/config/resolve";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";
import { needs, toolPath } from "#tests/support/tools";

const kustomizations = ["base", "overlays/cpu"] as const;
const tools = needs("kustomize", "kubeconform", "kubernetesSchemas");

async function build(name: string): Promise<string> {
  const path = join(packageRoot, "deploy", "kustomize", name);
  const { code, stdout, stderr } = await runProgram(toolPath("kustomize"), ["build", path]);
  assert.equal(code, 0, stderr);
  // Deprecated fields are reported there.
  assert.equal(stderr, "");
  return stdout;
}

async function conforms(yaml: string): Promise<{ ok: boolean; output: string }> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-manifests-"));
  try {
    const file = join(directory, "all.yaml");
    await writeFile(file, yaml);
    const schemas = join(toolPath("kubernetesSchemas"), "{{.ResourceKind}}{{.KindSuffix}}.json");
    const { code, stdout, stderr } = await runProgram(toolPath("kubeconform"), [
      "-strict",
      "-summary",
      "-schema-location",
      schemas,
      file,
    ]);
    return { ok: code === 0, output: stdout + stderr };
  } finally {
    await rm(directory, { recursive: true });
  }
}

// Only what these tests read; kubeconform has judged the rest.
interface Container {
  name: string;
  image: string;
  command?: string[];
  args?: string[];
  env?: { name: string; value?: string }[];
  ports?: { name: string; containerPort: number }[];
  resources: { requests: Record<string, string>; limits: Record<string, string> };
  securityContext: Record<string, unknown>;
  volumeMounts?: { name: string; mountPath: string; subPath?: string }[];
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  startupProbe?: Probe;
}
interface Probe {
  httpGet: { path: string; port: string };
}
interface PodSpec {
  serviceAccountName: string;
  automountServiceAccountToken: boolean;
  terminationGracePeriodSeconds: number;
  securityContext: Record<string, unknown>;
  initContainers?: Container[];
  containers: Container[];
  volumes: { name: string; secret?: { secretName: string }; configMap?: { name: string } }[];
}
interface Selector {
  matchLabels?: Record<string, string>;
}
interface Resource {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  data?: Record<string, string>;
  spec: {
    serviceName?: string;
    replicas?: number;
    clusterIP?: string;
    selector?: Selector & Record<string, unknown>;
    template?: {
      metadata: { labels: Record<string, string>; annotations: Record<string, string> };
      spec: PodSpec;
    };
    volumeClaimTemplates?: { metadata: { name: string } }[];
    ports?: { name: string; port: number; targetPort: string }[];
    podSelector?: Selector;
    policyTypes?: string[];
    ingress?: { ports: { port: number | string; endPort?: number }[] }[];
    egress?: {
      to: { podSelector?: Selector }[];
      ports: { port: number | string; endPort?: number }[];
    }[];
  };
}

class Manifests {
  readonly resources: readonly Resource[];

  constructor(yaml: string) {
    this.resources = parseAllDocuments(yaml).map((document) => document.toJS() as Resource);
  }

  get(kind: string, name: string): Resource {
    const found = this.resources.find(
      (r) =>
        r.kind === kind && (r.metadata.name === name || r.metadata.name.startsWith(`${name}-`)),
    );
    assert.ok(found !== undefined, `no ${kind} ${name}`);
    return found;
  }

  pod(component: "coordinator" | "worker"): PodSpec {
    const template = this.get("StatefulSet", `lockstep-${component}`).spec.template;
    assert.ok(template !== undefined);
    return template.spec;
  }

  container(component: "coordinator" | "worker"): Container {
    const container = this.pod(component).containers[0];
    assert.ok(container !== undefined);
    return container;
  }

  job(): string {
    return this.get("ConfigMap", "lockstep-job").data?.["job.yaml"] ?? "";
  }
}

for (const name of kustomizations) {
  test(`${name}: kubeconform -strict accepts it`, tools, async () => {
    const yaml = await build(name);
    const { ok, output } = await conforms(yaml);
    assert.ok(ok, output);
    assert.match(output, /Valid: 11, Invalid: 0, Errors: 0, Skipped: 0/);
  });

  test(
    `${name}: kubeconform refuses a misspelt field in each kind of resource`,
    tools,
    async () => {
      const yaml = await build(name);
      for (const [field, misspelt] of [
        ["replicas:", "replica:"],
        ["minAvailable:", "minAvailible:"],
        ["policyTypes:", "policyType:"],
        ["readinessProbe:", "readynessProbe:"],
        ["publishNotReadyAddresses:", "publishNotReadyAddress:"],
        ["automountServiceAccountToken:", "autoMountServiceAccountToken:"],
      ] as const) {
        const broken = yaml.replace(field, misspelt);
        assert.notEqual(broken, yaml, `${field} is not in the manifests`);
        const { ok, output } = await conforms(broken);
        assert.equal(ok, false, `${misspelt} was accepted`);
        assert.ok(output.includes(misspelt.slice(0, -1)), output);
      }
    },
  );

  test(`${name}: the job resolves, and agrees with the ports around it`, tools, async () => {
    const manifests = new Manifests(await build(name));
    const { config, warnings } = resolveConfig(
      parseConfigText(manifests.job(), "job.yaml"),
      new Map(),
      { cpuCount: 8 },
    );
    assert.deepEqual(warnings, []);
    assert.equal(config.workers, manifests.get("StatefulSet", "lockstep-worker").spec.replicas);
    const control = Number(config.listen.split(":").at(-1));
    const wanted = [
      { name: "control", port: control },
      ...Array.from({ length: config.reducer_shards }, (_, shard) => ({
        name: `reducer-${shard}`,
        port: control + 1 + shard,
      })),
      { name: "metrics", port: config.metrics_port },
    ];
    const ports = manifests.container("coordinator").ports ?? [];
    assert.deepEqual(
      ports.map((port) => ({ name: port.name, port: port.containerPort })),
      wanted,
    );
    const service = manifests.get("Service", "lockstep-coordinator").spec.ports ?? [];
    assert.deepEqual(
      service.map((port) => ({ name: port.name, port: port.port })),
      wanted,
    );
    assert.deepEqual(manifests.container("worker").command, ["node", "bin/lockstep", "worker"]);
    const args = manifests.container("worker").args ?? [];
    const dialled = args[args.indexOf("--coordinator") + 1];
    assert.equal(dialled, `lockstep-coordinator-0.lockstep-coordinator:${control}`);
    assert.equal(dialled, `${config.advertise_host}:${control}`);
    const last = control + config.reducer_shards;
    const policy = manifests.get("NetworkPolicy", "lockstep-coordinator").spec;
    assert.deepEqual(policy.ingress?.[0]?.ports, [
      { protocol: "TCP", port: control, endPort: last },
    ]);
    const egress = manifests.get("NetworkPolicy", "lockstep-worker").spec.egress;
    assert.deepEqual(egress?.[0]?.ports, [{ protocol: "TCP", port: control, endPort: last }]);
  });

  test(`${name}: paths of the job lie on volumes of the coordinator`, tools, async () => {
    const manifests = new Manifests(await build(name));
    const { config } = resolveConfig(parseConfigText(manifests.job(), "job.yaml"), new Map(), {
      cpuCount: 8,
    });
    const { volumeMounts = [], command } = manifests.container("coordinator");
    const mounted = (path: string, volume: string): boolean =>
      volumeMounts.some(
        ({ name: mount, mountPath }) => mount === volume && path.startsWith(`${mountPath}/`),
      );
    assert.ok(mounted(config.model_name_or_path, "data"));
    assert.ok(mounted(config.output_dir, "data"));
    for (const file of [config.tls_cert_file, config.tls_key_file, config.tls_ca_file]) {
      assert.ok(file !== null && mounted(file, "tls"), `${file}`);
    }
    for (const file of [config.join_token_file, config.http_token_file]) {
      assert.ok(file !== null && mounted(file, "tokens"), `${file}`);
    }
    const script = command?.at(-1) ?? "";
    const configFile = /node bin\/lockstep coordinator (\S+)/.exec(script)?.[1];
    assert.ok(
      volumeMounts.some(
        ({ name: mount, mountPath }) => mount === "job" && mountPath === configFile,
      ),
    );
    assert.ok(script.includes(`${config.output_dir}/checkpoint-*`));
    const claims = manifests.get("StatefulSet", "lockstep-coordinator").spec.volumeClaimTemplates;
    assert.deepEqual(
      claims?.map(({ metadata }) => metadata.name),
      ["data"],
    );
  });

  test(`${name}: pods are locked down, probed, and given time to save`, tools, async () => {
    const manifests = new Manifests(await build(name));
    assert.ok(manifests.resources.every(({ metadata }) => metadata.namespace === undefined));
    const account = manifests.get("ServiceAccount", "lockstep");
    assert.equal((account as unknown as PodSpec).automountServiceAccountToken, false);
    for (const component of ["coordinator", "worker"] as const) {
      const pod = manifests.pod(component);
      assert.equal(pod.automountServiceAccountToken, false);
      assert.equal(pod.serviceAccountName, "lockstep");
      assert.equal(pod.securityContext.runAsNonRoot, true);
      assert.deepEqual(pod.securityContext.seccompProfile, { type: "RuntimeDefault" });
      for (const container of [...(pod.initContainers ?? []), ...pod.containers]) {
        assert.deepEqual(container.securityContext, {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
        assert.ok(container.resources.limits.memory !== undefined);
        assert.match(container.image, /:\d+\.\d+\.\d+$/);
      }
      const container = manifests.container(component);
      assert.deepEqual(container.livenessProbe?.httpGet, { path: "/healthz", port: "metrics" });
      assert.deepEqual(container.startupProbe?.httpGet, { path: "/healthz", port: "metrics" });
      assert.deepEqual(container.readinessProbe?.httpGet, { path: "/readyz", port: "metrics" });
      const template = manifests.get("StatefulSet", `lockstep-${component}`).spec.template;
      assert.equal(template?.metadata.annotations["prometheus.io/scrape"], "true");
      const metrics = container.ports?.find((port) => port.name === "metrics")?.containerPort;
      assert.equal(template?.metadata.annotations["prometheus.io/port"], String(metrics));
      assert.ok(pod.volumes.some(({ secret }) => secret?.secretName === "lockstep-tokens"));
      assert.ok(
        pod.volumes.some(({ secret }) => secret?.secretName === `lockstep-${component}-tls`),
      );
    }
    assert.ok(manifests.pod("coordinator").terminationGracePeriodSeconds >= 600);
    assert.ok(manifests.pod("worker").terminationGracePeriodSeconds >= 60);
  });

  test(`${name}: selectors find the pods that they are meant for`, tools, async () => {
    const manifests = new Manifests(await build(name));
    const labelsOf = (component: string): Record<string, string> =>
      manifests.get("StatefulSet", `lockstep-${component}`).spec.template?.metadata.labels ?? {};
    const matches = (selector: Record<string, unknown>, component: string): boolean => {
      const labels = labelsOf(component);
      return Object.entries(selector).every(([key, value]) => labels[key] === value);
    };
    for (const resource of manifests.resources) {
      const { kind, metadata, spec } = resource;
      const selector =
        kind === "Service"
          ? spec.selector
          : kind === "NetworkPolicy"
            ? spec.podSelector?.matchLabels
            : spec?.selector?.matchLabels;
      if (selector === undefined) continue;
      const component = metadata.name.includes("worker") ? "worker" : "coordinator";
      const other = component === "worker" ? "coordinator" : "worker";
      assert.ok(matches(selector, component), `${kind} ${metadata.name} finds no ${component}`);
      assert.ok(!matches(selector, other), `${kind} ${metadata.name} finds a ${other} too`);
    }
    // A common label here would cut workers off from the cluster's DNS.
    const dns = manifests.get("NetworkPolicy", "lockstep-worker").spec.egress?.[1];
    assert.deepEqual(dns?.to[0]?.podSelector?.matchLabels, { "k8s-app": "kube-dns" });
  });
}

for (const name of kustomizations) {
  test(`${name}: the worker's command line is one that the program takes`, tools, async () => {
    const { command = [], args = [] } = new Manifests(await build(name)).container("worker");
    const flags = [...command, ...args].filter((word) => word.startsWith("--"));
    const help = await runProgram(process.execPath, ["bin/lockstep", "worker", "--help"], {
      cwd: packageRoot,
    });
    assert.equal(help.code, 0, help.stderr);
    for (const flag of flags) {
      const flagName = flag.split("=")[0] ?? "";
      assert.ok(help.stdout.includes(`${flagName} `), `${flagName} is no flag of the worker`);
    }
    const mounts = new Manifests(await build(name)).container("worker").volumeMounts ?? [];
    for (const flag of flags.filter((word) => word.includes("-file="))) {
      const file = flag.split("=")[1] ?? "";
      assert.ok(
        mounts.some(({ mountPath }) => file.startsWith(`${mountPath}/`)),
        `${file} is not mounted`,
      );
    }
  });
}

test(
  "the coordinator's pod resumes when there is a checkpoint, and starts anew when there is none",
  tools,
  async () => {
    const script =
      new Manifests(await build("base")).container("coordinator").command?.at(-1) ?? "";
    const directory = await mkdtemp(join(tmpdir(), "lockstep-entry-"));
    try {
      // The script itself, with another output directory and a program that prints its arguments.
      const run = async (): Promise<string> => {
        const { code, stdout, stderr } = await runProgram("/bin/sh", [
          "-c",
          script
            .replaceAll("/var/lib/lockstep/output", directory)
            .replace("node bin/lockstep", "echo lockstep"),
        ]);
        assert.equal(code, 0, stderr);
        return stdout.trim();
      };
      assert.equal(await run(), "lockstep coordinator /etc/lockstep/job.yaml");
      // A checkpoint being written has another name until it is whole.
      await mkdir(join(directory, ".checkpoint-5.tmp-1-0123456789ab"));
      assert.equal(await run(), "lockstep coordinator /etc/lockstep/job.yaml");
      await mkdir(join(directory, "checkpoint-5"));
      assert.equal(
        await run(),
        "lockstep coordinator /etc/lockstep/job.yaml --resume_from_checkpoint true",
      );
    } finally {
      await rm(directory, { recursive: true });
    }
  },
);

test("base asks for a GPU a worker, the CPU overlay for none", tools, async () => {
  const base = new Manifests(await build("base"));
  assert.equal(base.container("worker").resources.limits["nvidia.com/gpu"], "1");
  assert.match(base.container("worker").image, /^lockstep-worker-cuda:/);
  const cpuYaml = await build("overlays/cpu");
  assert.ok(!cpuYaml.includes("nvidia.com/gpu"));
  assert.match(new Manifests(cpuYaml).container("worker").image, /^lockstep-worker:/);
});

test("the image names of the manifests are those that the Dockerfiles tell to build", async () => {
  for (const [file, image] of [
    ["coordinator.Dockerfile", "lockstep-coordinator"],
    ["worker.Dockerfile", "lockstep-worker"],
    ["worker-cuda.Dockerfile", "lockstep-worker-cuda"],
  ] as const) {
    const text = await readFile(join(packageRoot, "deploy", "docker", file), "utf8");
    assert.match(text, new RegExp(`-t ${image}:\\d`));
  }
});
