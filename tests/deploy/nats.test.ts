import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parseAllDocuments } from "yaml";
import { packageRoot } from "#lib/core/paths";
import { JobQueue } from "#lib/queue/job-queue";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { parseNatsUrl } from "#lib/wire/nats/servers";
import { fields } from "#tests/queue/suite";
import { TestAuthority } from "#tests/support/certificates";
import { build, conforms } from "#tests/support/manifests";
import { natsSettings } from "#tests/support/nats-server";
import { freePorts } from "#tests/support/ports";
import { runProgram } from "#tests/support/run-program";
import { needs, toolPath } from "#tests/support/tools";

const tools = needs("kustomize", "kubeconform", "kubernetesSchemas", "natsServer");
const roles = ["watcher", "submitter", "coordinator", "agent"] as const;
const count = 3;

// Only what these tests read; kubeconform has judged the rest.
interface Labels {
  readonly matchLabels: Readonly<Record<string, string>>;
}
interface Container {
  readonly args: readonly string[];
  readonly env: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly fieldRef?: object; readonly secretKeyRef?: { key: string } };
  }[];
  readonly ports: readonly { readonly containerPort: number }[];
  readonly volumeMounts: readonly { readonly mountPath: string }[];
  readonly lifecycle: { readonly preStop: { readonly exec: { readonly command: string[] } } };
}
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec: {
    readonly replicas: number;
    readonly serviceName: string;
    readonly publishNotReadyAddresses: boolean;
    readonly maxUnavailable: number;
    readonly selector: Labels;
    readonly ports: readonly { readonly port: number }[];
    readonly template: {
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly containers: readonly [Container];
        readonly affinity: {
          readonly podAntiAffinity: {
            readonly requiredDuringSchedulingIgnoredDuringExecution: readonly [
              { readonly labelSelector: Labels },
            ];
          };
        };
      };
    };
  };
}

let directory: string;
let authority: TestAuthority;
let manifests: readonly Manifest[];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-nats-manifests-"));
  authority = await TestAuthority.create();
  if (tools.skip !== undefined) return;
  manifests = parseAllDocuments(await build("nats")).map((each) => each.toJS() as Manifest);
});
after(async () => {
  await authority.remove();
  await rm(directory, { recursive: true, force: true });
});

const get = (kind: string, name: string): Manifest => {
  const found = manifests.find((each) => each.kind === kind && each.metadata.name.startsWith(name));
  assert.ok(found !== undefined, `no ${kind} ${name}`);
  return found;
};

/** The environment that the pod gives server `index`. */
function environment(index: number): Record<string, string> {
  const { env } = get("StatefulSet", "lockstep-nats").spec.template.spec.containers[0];
  return Object.fromEntries(
    env.map(({ name, value, valueFrom }) =>
      valueFrom?.fieldRef === undefined
        ? [name, value ?? `secret-${valueFrom?.secretKeyRef?.key}`]
        : [name, `lockstep-nats-${index}`],
    ),
  );
}

/** The configuration of the manifest with this machine's files, and what else stands in its place. */
async function configOf(
  name: string,
  replace: (text: string) => string = (text) => text,
): Promise<string> {
  const own = join(directory, name);
  await mkdir(join(own, "tls"), { recursive: true });
  const { cert, key } = await authority.issue("lockstep-nats");
  await copyFile(cert, join(own, "tls/tls.crt"));
  await copyFile(key, join(own, "tls/tls.key"));
  await copyFile(authority.caFile, join(own, "tls/ca.crt"));
  for (const [file, text] of Object.entries(get("ConfigMap", "lockstep-nats-config").data ?? {})) {
    const here = text
      .replaceAll("/etc/nats/tls/", `${own}/tls/`)
      .replace('"/data"', `"${own}/data"`)
      .replace("/var/run/nats/nats.pid", `${own}/nats.pid`);
    await writeFile(join(own, file), replace(here));
  }
  return join(own, "nats.conf");
}

const check = async (config: string) =>
  runProgram("env", [
    ...Object.entries(environment(0)).map(([name, value]) => `${name}=${value}`),
    ...[toolPath("natsServer"), "-t", "-c", config],
  ]);

test("the servers' manifests conform, and misspelt fields do not", tools, async () => {
  const yaml = await build("nats");
  const { ok, output } = await conforms(yaml);
  assert.ok(ok, output);
  for (const [field, misspelt] of [
    ["podManagementPolicy:", "podManagementPolicies:"],
    ["maxUnavailable:", "maxUnavailables:"],
    ["requiredDuringSchedulingIgnoredDuringExecution:", "requiredDuringScheduling:"],
  ] as const) {
    const broken = yaml.replace(field, misspelt);
    assert.notEqual(broken, yaml, field);
    assert.equal((await conforms(broken)).ok, false, misspelt);
  }
});

test("the server takes its configuration, and refuses a misspelt one", tools, async () => {
  const good = await check(await configOf("good"));
  assert.equal(good.code, 0, good.stderr);
  const misspelt = await configOf("bad", (text) => text.replace("sync_interval", "sync_intervals"));
  assert.notEqual((await check(misspelt)).code, 0);
  const unknown = await configOf("none", (text) => text.replace("$POD_NAME", "$POD_NAMES"));
  assert.match((await check(unknown)).stderr, /POD_NAMES/);
});

test("servers, services, policies and agents agree on names, ports and paths", tools, async () => {
  const { spec } = get("StatefulSet", "lockstep-nats");
  const [{ ports, volumeMounts, lifecycle }] = spec.template.spec.containers;
  const { data = {} } = get("ConfigMap", "lockstep-nats-config");
  const config = data["nats.conf"] ?? "";
  assert.equal(spec.replicas, count);
  const headless = get("Service", spec.serviceName);
  assert.equal(headless.spec.publishNotReadyAddresses, true);
  assert.deepEqual(
    [...config.matchAll(/"nats-route:\/\/(.*)"/g)].map(([, route]) => route),
    Array.from({ length: count }, (_, i) => `lockstep-nats-${i}.${spec.serviceName}:6222`),
  );
  const portOf = (key: string): number =>
    Number(new RegExp(`^${key}: "0.0.0.0:(\\d+)"`, "m").exec(config)?.[1]);
  assert.deepEqual(
    ports.map(({ containerPort }) => containerPort),
    [portOf("listen"), portOf(" +listen"), portOf("http")],
  );
  for (const [, path = ""] of config.matchAll(/"(\/[^"]*)"/g)) {
    const isMounted = volumeMounts.some(({ mountPath }) => `${path}/`.startsWith(`${mountPath}/`));
    assert.ok(isMounted, path);
  }
  assert.ok(lifecycle.preStop.exec.command.at(-1)?.endsWith("=/var/run/nats/nats.pid"));
  const seconds = (key: string): number =>
    Number(new RegExp(`${key}: "(\\d+)s"`).exec(config)?.[1]);
  const leaving = seconds("lame_duck_grace_period") + seconds("lame_duck_duration");
  assert.ok(leaving < spec.template.spec.terminationGracePeriodSeconds);
  // One of three may be away, and no two are lost with one node.
  const budget = get("PodDisruptionBudget", "lockstep-nats").spec;
  assert.equal(budget.maxUnavailable, 1);
  const [apart] =
    spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution;
  for (const { matchLabels } of [budget.selector, apart.labelSelector, spec.selector]) {
    assert.deepEqual(matchLabels, spec.selector.matchLabels);
  }
  const service = get("Service", "lockstep-nats");
  const [agent] = parseAllDocuments(await build("agents")).map((each) => each.toJS() as Manifest);
  const url = agent?.spec.template.spec.containers[0].args
    .find((arg) => arg.startsWith("--nats-url="))
    ?.slice("--nats-url=".length);
  assert.deepEqual(parseNatsUrl(url ?? "").addresses, [
    `${service.metadata.name}:${service.spec.ports[0]?.port}`,
  ]);
});

test("three such servers make a cluster that keeps a queue three times", tools, async () => {
  const port = await freePorts(3 * count);
  const at = (index: number, offset: number): number => port + 3 * index + offset;
  const children: ChildProcess[] = [];
  let said = "";
  try {
    for (let index = 0; index < count; index++) {
      const config = await configOf(`server${index}`, (text) =>
        text
          .replace(/"nats-route:\/\/lockstep-nats-(\d)\.[^"]*"/g, (_, i) =>
            JSON.stringify(`nats-route://127.0.0.1:${at(Number(i), 2)}`),
          )
          .replace("0.0.0.0:4222", `127.0.0.1:${at(index, 0)}`)
          .replace("0.0.0.0:8222", `127.0.0.1:${at(index, 1)}`)
          .replace("0.0.0.0:6222", `127.0.0.1:${at(index, 2)}`),
      );
      const child = spawn(toolPath("natsServer"), ["-c", config], {
        stdio: ["ignore", "ignore", "pipe"],
        env: { ...process.env, ...environment(index) },
      });
      child.stderr.on("data", (chunk: Buffer) => {
        said += chunk.toString();
      });
      children.push(child);
    }
    const credentials = join(directory, "submitter.creds");
    await writeFile(credentials, "submitter:secret-submitter");
    const settings = natsSettings(`tls://localhost:${at(0, 0)}`, {
      credentialsFile: credentials,
      tlsCaFile: authority.caFile,
    });
    const options = { role: "submitter", name: "test", onNews: () => {} } as const;
    const deadlineMs = performance.now() + 60_000;
    const again = async <T>(action: () => Promise<T>): Promise<T> => {
      for (;;) {
        try {
          return await action();
        } catch (error) {
          // Until the three have found each other.
          if (performance.now() > deadlineMs) throw new Error(said, { cause: error });
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
    };
    const store = await again(async () =>
      NatsRecordStore.open(await NatsLink.open(settings, options)),
    );
    const queue = new JobQueue(store, { patienceMs: 30_000 });
    await queue.submit(fields("one"));
    await queue.close();
    const link = await NatsLink.open(settings, options);
    const { config } = await (await link.manager()).streams.info("KV_lockstep-jobs");
    assert.equal(config.num_replicas, count);
    await link.close();
  } finally {
    await Promise.all(
      children.map(async (child) => {
        if (child.exitCode !== null) return;
        const ended = once(child, "exit");
        child.kill("SIGKILL");
        await ended;
      }),
    );
  }
});

test("the page names every key of the servers' secrets", tools, async () => {
  const page = await readFile(join(packageRoot, "docs/running-on-kubernetes.md"), "utf8");
  for (const role of roles) assert.ok(page.includes(`--from-literal=${role}=`), role);
  for (const name of ["lockstep-nats-users", "lockstep-nats-tls"]) assert.ok(page.includes(name));
});
