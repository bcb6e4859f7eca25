import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parseConfigText } from "#lib/config/yaml-file";
import { resolveConfig } from "#lib/config/resolve";
import { packageRoot } from "#lib/core/paths";
import { build, conforms, Manifests, type PodSpec } from "#tests/support/manifests";
import { runProgram } from "#tests/support/run-program";
import { needs } from "#tests/support/tools";

const kustomizations = ["base", "overlays/cpu"] as const;
const tools = needs("kustomize", "kubeconform", "kubernetesSchemas");

for (const name of kustomizations) {
  test(`${name}: kubeconform -strict accepts it`, tools, async () => {
    const yaml = await build(name);
    const { ok, output } = await conforms(yaml);
    assert.ok(ok, output);
    assert.match(output, /Valid: 9, Invalid: 0, Errors: 0, Skipped: 0/);
  });

  test(
    `${name}: kubeconform refuses a misspelt field in each kind of resource`,
    tools,
    async () => {
      const yaml = await build(name);
      for (const [field, misspelt] of [
        ["completionMode:", "completionModus:"],
        ["succeededCount:", "succeedCount:"],
        ["onPodConditions:", "onPodCondition:"],
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
    const workers = manifests.get("Job", "lockstep-worker").spec;
    assert.equal(config.workers, workers.completions);
    assert.equal(config.workers, workers.parallelism);
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
    // h2c is HTTP/2 without TLS, which these ports do not speak where the job names a certificate.
    for (const { name: portName, appProtocol } of service) {
      const isGrpc = portName === "control" || portName.startsWith("reducer-");
      const expected = config.tls_cert_file === null ? "kubernetes.io/h2c" : "https";
      const ofHttp = config.http_tls_cert_file === null ? undefined : "https";
      assert.equal(appProtocol, isGrpc ? expected : ofHttp, portName);
    }
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
    const { volumeMounts = [], args = [] } = manifests.container("coordinator");
    const mounted = (path: string, volume: string): boolean =>
      volumeMounts.some(
        ({ name: mount, mountPath }) => mount === volume && path.startsWith(`${mountPath}/`),
      );
    assert.ok(mounted(config.model_name_or_path, "data"));
    assert.ok(mounted(config.output_dir, "data"));
    const certificates = [config.tls_cert_file, config.tls_key_file, config.tls_ca_file];
    for (const file of [...certificates, config.http_tls_cert_file, config.http_tls_key_file]) {
      assert.ok(file !== null && mounted(file, "tls"), `${file}`);
    }
    for (const file of [config.join_token_file, config.http_token_file]) {
      assert.ok(file !== null && mounted(file, "tokens"), `${file}`);
    }
    assert.ok(
      volumeMounts.some(({ name: mount, mountPath }) => mount === "job" && mountPath === args[0]),
    );
    const claims = manifests
      .pod("coordinator")
      .volumes.map(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName);
    const volume = new Manifests(await build("volume"));
    assert.ok(claims.includes(volume.get("PersistentVolumeClaim", "lockstep-data").metadata.name));
  });

  test(`${name}: a run that is over ends its Jobs, and a drain passes`, tools, async () => {
    const manifests = new Manifests(await build(name));
    const kinds = new Set(manifests.resources.map(({ kind }) => kind));
    // What brings a pod back that ended well would train a finished run for ever.
    for (const kind of ["StatefulSet", "Deployment", "ReplicaSet", "DaemonSet"]) {
      assert.ok(!kinds.has(kind), kind);
    }
    // Pods of a Job have no scale: a budget with maxUnavailable lets none of them go, and one with
    // minAvailable: 1 never lets the coordinator go.
    assert.ok(!kinds.has("PodDisruptionBudget"));
    for (const component of ["coordinator", "worker"] as const) {
      const { spec } = manifests.get("Job", `lockstep-${component}`);
      const pod = manifests.pod(component);
      assert.equal(spec.completionMode, "Indexed");
      assert.equal(pod.restartPolicy, "Never");
      assert.equal(pod.initContainers, undefined);
      const limit = spec.backoffLimit ?? spec.backoffLimitPerIndex ?? Number.POSITIVE_INFINITY;
      assert.ok(limit <= 20, "what fails again and again gives its devices back");
      const rules = spec.podFailurePolicy?.rules ?? [];
      const others = rules.filter(({ action }) => action !== "Ignore");
      assert.deepEqual(
        others.map(({ action, onExitCodes }) => [action, onExitCodes?.values]),
        component === "coordinator" ? [["FailJob", [130]]] : [],
      );
      assert.deepEqual(
        rules.find(({ onPodConditions }) => onPodConditions !== undefined)?.onPodConditions,
        [{ type: "DisruptionTarget", status: "True" }],
      );
      const codes = rules.find(({ onExitCodes }) => onExitCodes !== undefined)?.onExitCodes;
      assert.equal(codes?.containerName, component);
      assert.deepEqual(codes?.values, component === "worker" ? [75, 143] : [143]);
      // Where the Job's name and index, and a Service of its name, give each pod its own.
      assert.equal(pod.subdomain, `lockstep-${component}`);
      assert.equal(manifests.get("Service", `lockstep-${component}`).spec.clusterIP, "None");
    }
    assert.equal(manifests.get("Job", "lockstep-coordinator").spec.completions, 1);
    const { successPolicy } = manifests.get("Job", "lockstep-worker").spec;
    assert.deepEqual(successPolicy, { rules: [{ succeededCount: 1 }] });
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
      // The kubelet takes any certificate, but asks in clear text unless it is told.
      const asked = (path: string) => ({ path, port: "metrics", scheme: "HTTPS" });
      assert.deepEqual(container.livenessProbe?.httpGet, asked("/healthz"));
      assert.deepEqual(container.startupProbe?.httpGet, asked("/healthz"));
      assert.deepEqual(container.readinessProbe?.httpGet, asked("/readyz"));
      const template = manifests.get("Job", `lockstep-${component}`).spec.template;
      assert.equal(template?.metadata.annotations["prometheus.io/scrape"], "true");
      assert.equal(template?.metadata.annotations["prometheus.io/scheme"], "https");
      const metrics = container.ports?.find((port) => port.name === "metrics")?.containerPort;
      assert.equal(template?.metadata.annotations["prometheus.io/port"], String(metrics));
      assert.ok(pod.volumes.some(({ secret }) => secret?.secretName === "lockstep-tokens"));
      assert.ok(
        pod.volumes.some(({ secret }) => secret?.secretName === `lockstep-${component}-tls`),
      );
    }
    assert.ok(manifests.pod("coordinator").terminationGracePeriodSeconds >= 600);
    const worker = manifests.pod("worker");
    const drain = worker.containers
      .flatMap(({ args = [] }) => args)
      .find((arg) => arg.startsWith("--drain-grace-ms="));
    const drainMs = Number(drain?.split("=")[1]);
    // What is given back is given back before the process is killed, goodbye included.
    assert.ok(
      drainMs >= 60_000 && drainMs + 10_000 <= worker.terminationGracePeriodSeconds * 1_000,
    );
  });

  test(`${name}: selectors find the pods that they are meant for`, tools, async () => {
    const manifests = new Manifests(await build(name));
    const labelsOf = (component: string): Record<string, string> =>
      manifests.get("Job", `lockstep-${component}`).spec.template?.metadata.labels ?? {};
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
  "the volume and the pod for copying conform, are locked down, and no run owns them",
  tools,
  async () => {
    for (const name of ["volume", "files"]) {
      const { ok, output } = await conforms(await build(name));
      assert.ok(ok, output);
      assert.match(output, /Valid: 1, Invalid: 0, Errors: 0, Skipped: 0/);
    }
    const { resources } = new Manifests(await build("files"));
    const pod = resources[0]?.spec as unknown as PodSpec;
    assert.equal(pod.volumes[0]?.persistentVolumeClaim?.claimName, "lockstep-data");
    assert.deepEqual(pod.containers[0]?.volumeMounts, [
      { name: "data", mountPath: "/var/lib/lockstep" },
    ]);
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.match(pod.containers[0]?.image ?? "", /:\d+\.\d+\.\d+$/);
    // Selectors of a run must not take it for a coordinator.
    assert.equal(resources[0]?.metadata.labels?.["app.kubernetes.io/component"], "files");
    const base = new Manifests(await build("base"));
    assert.ok(
      base.resources.every(({ kind }) => kind !== "PersistentVolumeClaim" && kind !== "Pod"),
    );
  },
);

test(
  "the coordinator's command line goes on from a checkpoint where there is one",
  tools,
  async () => {
    const { command, args } = new Manifests(await build("base")).container("coordinator");
    // Without a shell, SIGTERM reaches the coordinator itself.
    assert.deepEqual(command, ["node", "bin/lockstep", "coordinator"]);
    assert.deepEqual(args, ["/etc/lockstep/job.yaml", "--resume_from_checkpoint=auto"]);
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
