import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "./run-program.js";
import { toolPath } from "./tools.js";

/** What `kustomize build` makes of a folder of deploy/kustomize. */
export async function build(name: string): Promise<string> {
  const path = join(packageRoot, "deploy", "kustomize", name);
  const { code, stdout, stderr } = await runProgram(toolPath("kustomize"), ["build", path]);
  assert.equal(code, 0, stderr);
  // Deprecated fields are reported there.
  assert.equal(stderr, "");
  return stdout;
}

/** Judged by kubeconform -strict against the schemas of the API. */
export async function conforms(yaml: string): Promise<{ ok: boolean; output: string }> {
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
  httpGet: { path: string; port: string; scheme: string };
}
export interface PodSpec {
  restartPolicy: string;
  subdomain: string;
  serviceAccountName: string;
  automountServiceAccountToken: boolean;
  terminationGracePeriodSeconds: number;
  securityContext: Record<string, unknown>;
  initContainers?: Container[];
  containers: Container[];
  volumes: {
    name: string;
    secret?: { secretName: string };
    configMap?: { name: string };
    persistentVolumeClaim?: { claimName: string };
  }[];
}
interface Selector {
  matchLabels?: Record<string, string>;
}
interface Resource {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  data?: Record<string, string>;
  spec: {
    completionMode?: string;
    completions?: number;
    parallelism?: number;
    backoffLimit?: number;
    backoffLimitPerIndex?: number;
    successPolicy?: { rules: { succeededCount: number }[] };
    podFailurePolicy?: {
      rules: {
        action: string;
        onExitCodes?: { containerName: string; operator: string; values: number[] };
        onPodConditions?: { type: string; status: string }[];
      }[];
    };
    clusterIP?: string;
    selector?: Selector & Record<string, unknown>;
    template?: {
      metadata: { labels: Record<string, string>; annotations: Record<string, string> };
      spec: PodSpec;
    };
    ports?: { name: string; port: number; targetPort: string; appProtocol?: string }[];
    podSelector?: Selector;
    policyTypes?: string[];
    ingress?: { ports: { port: number | string; endPort?: number }[] }[];
    egress?: {
      to: { podSelector?: Selector }[];
      ports: { port: number | string; endPort?: number }[];
    }[];
  };
}

/** The resources of a build. */
export class Manifests {
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

  pod(component: "coordinator" | "worker" | "reducer"): PodSpec {
    const template = this.get("Job", `lockstep-${component}`).spec.template;
    assert.ok(template !== undefined);
    return template.spec;
  }

  container(component: "coordinator" | "worker" | "reducer"): Container {
    const container = this.pod(component).containers[0];
    assert.ok(container !== undefined);
    return container;
  }

  job(): string {
    return this.get("ConfigMap", "lockstep-job").data?.["job.yaml"] ?? "";
  }
}
