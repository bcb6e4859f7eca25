import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import {
  folderOf,
  importsOf,
  listSources,
  packageOf,
  readSource,
  resolveImport,
} from "#tests/support/source-files";

/** Which folders of ours a folder may import. ARCHITECTURE.md shows the same table. */
const mayImport: Readonly<Record<string, readonly string[] | "anything">> = {
  proto: [],
  "lib/core": [],
  "lib/optim": ["lib/core"],
  "lib/objectives": ["lib/core"],
  "lib/parameters": ["lib/core", "lib/checkpoint"],
  "lib/config": ["lib/core", "lib/optim", "lib/objectives", "lib/parameters"],
  "lib/store": ["lib/core"],
  "lib/checkpoint": ["lib/core", "lib/store"],
  "lib/hub": ["lib/core", "lib/checkpoint"],
  "lib/data": ["lib/core", "lib/config"],
  "lib/ops": ["lib/core"],
  "lib/graph": ["lib/core", "proto", "lib/ops"],
  "lib/models": ["lib/core", "lib/ops"],
  "lib/tuning": [
    "lib/core",
    "lib/objectives",
    "lib/parameters",
    "lib/ops",
    "lib/models",
    "lib/graph",
  ],
  "lib/evaluation": [
    "lib/core",
    "lib/objectives",
    "lib/models",
    "lib/graph",
    "lib/tuning",
    "lib/data",
  ],
  "lib/queue": ["lib/core"],
  "lib/wire": ["lib/core", "lib/queue", "proto"],
  coordinator: [
    "lib/core",
    "lib/optim",
    "lib/objectives",
    "lib/checkpoint",
    "lib/data",
    "lib/wire",
  ],
  reducer: [
    "lib/core",
    "lib/optim",
    "lib/parameters",
    "lib/store",
    "lib/checkpoint",
    "lib/wire",
    "coordinator",
  ],
  worker: [
    "lib/core",
    "lib/optim",
    "lib/objectives",
    "lib/parameters",
    "lib/checkpoint",
    "lib/data",
    "lib/ops",
    "lib/graph",
    "lib/models",
    "lib/tuning",
    "lib/evaluation",
    "lib/wire",
  ],
  run: [
    "lib/core",
    "lib/optim",
    "lib/objectives",
    "lib/parameters",
    "lib/config",
    "lib/checkpoint",
    "lib/hub",
    "lib/data",
    "lib/models",
    "lib/tuning",
    "lib/evaluation",
    "lib/queue",
    "lib/store",
    "lib/wire",
    "coordinator",
    "worker",
  ],
  cli: "anything",
  // Types only: a browser has no lib/core.
  dashboard: ["lib/core"],
  grafana: [],
  tests: "anything",
  bench: "anything",
};

/** Packages that only some folders may import; tests and benchmarks may too. */
const packageOwners: Readonly<Record<string, readonly string[]>> = {
  "@tensorflow/tfjs-node-gpu": ["lib/graph"],
  "@grpc/grpc-js": ["lib/wire"],
  nats: ["lib/wire"],
  "@huggingface/hub": ["lib/hub"],
  "@aws-sdk/client-s3": ["lib/store"],
  // lib/graph writes TensorFlow's protobuf messages, lib/wire Lockstep's.
  protobufjs: ["lib/wire", "lib/graph", "proto"],
  "@tensorflow/tfjs-core": ["lib/ops", "lib/graph", "lib/models", "lib/tuning", "lib/evaluation"],
  "prom-client": ["coordinator", "reducer", "worker", "lib/core"],
  "@grafana/grafana-foundation-sdk": ["grafana"],
};

const free = new Set(["tests", "bench"]);
const sources = listSources();
// AssemblyScript has a compiler and import rules of its own.
const typescript = sources.filter((path) => !path.startsWith("lib/optim/assembly/"));

interface Edge {
  readonly from: string;
  readonly specifier: string;
  readonly typeOnly: boolean;
  readonly dynamic: boolean;
  /** A file of ours, or undefined for a package. */
  readonly target: string | undefined;
}

const edges: readonly Edge[] = typescript.flatMap((from) =>
  importsOf(readSource(from)).map((imported) => ({
    from,
    ...imported,
    target: resolveImport(from, imported.specifier),
  })),
);
const describe = (edge: Edge): string => `${edge.from} imports ${edge.specifier}`;

test("the import reader sees each form of import", () => {
  // Quoted line by line: this file is read by the same reader.
  const text = [
    'import a, { b } from "./a.js";',
    'import type { C } from "#lib/c";',
    'import { type D, type E } from "#lib/d";',
    'import { type F, g } from "#lib/f";',
    'import "./side-effect.js";',
    "import {",
    "  h,",
    '} from "package/sub";',
    'export { i } from "./i.js";',
    'export * from "./j.js";',
    '// import { no } from "./comment.js";',
    '/* import { no } from "./block.js"; */',
    "const k = await import" + '("./k.js");',
    "type L = typeof import" + '("./l.js");',
  ].join("\n");
  assert.deepEqual(
    importsOf(text).map(({ specifier, typeOnly, dynamic }) => [specifier, typeOnly, dynamic]),
    [
      ["./a.js", false, false],
      ["#lib/c", true, false],
      ["#lib/d", true, false],
      ["#lib/f", false, false],
      ["./side-effect.js", false, false],
      ["package/sub", false, false],
      ["./i.js", false, false],
      ["./j.js", false, false],
      ["./k.js", false, true],
      ["./l.js", true, true],
    ],
  );
});

test("there are sources, and each lies in a folder of the table", () => {
  assert.ok(typescript.length > 50);
  for (const path of typescript) {
    assert.ok(folderOf(path) in mayImport, `${path}: the table has no ${folderOf(path)}`);
  }
});

test("no import climbs out with ../", () => {
  const climbing = edges.filter(({ specifier }) => specifier.includes("../")).map(describe);
  assert.deepEqual(climbing, []);
});

test("relative imports end in .js, subpath imports have no ending, and both name a source", () => {
  const wrong = edges.filter(({ specifier, target }) => {
    if (target === undefined) return false;
    if (specifier.startsWith("./") !== specifier.endsWith(".js")) return true;
    return !existsSync(join(packageRoot, target));
  });
  assert.deepEqual(wrong.map(describe), []);
});

test("within a folder imports are relative or name the folder, across folders they keep the table", () => {
  const forbidden = edges.filter(({ from, target }) => {
    if (target === undefined || folderOf(target) === folderOf(from)) return false;
    const allowed = mayImport[folderOf(from)];
    return allowed !== "anything" && allowed?.includes(folderOf(target)) !== true;
  });
  assert.deepEqual(forbidden.map(describe), []);
});

test("nothing but tests and benchmarks imports tests, benchmarks or Grafana's generator", () => {
  const forbidden = edges.filter(
    ({ from, target }) =>
      target !== undefined &&
      ["tests", "bench", "grafana"].includes(folderOf(target)) &&
      folderOf(from) !== folderOf(target) &&
      !free.has(folderOf(from)),
  );
  assert.deepEqual(forbidden.map(describe), []);
});

test("gRPC, protobuf, NATS, TensorFlow and prom-client are known to their folders only", () => {
  const forbidden = edges.filter(({ from, specifier, target }) => {
    if (target !== undefined || free.has(folderOf(from))) return false;
    const owners =
      packageOwners[packageOf(specifier)] ??
      (specifier.startsWith("@tensorflow/") ? packageOwners["@tensorflow/tfjs-core"] : undefined);
    return owners !== undefined && !owners.includes(folderOf(from));
  });
  assert.deepEqual(forbidden.map(describe), []);
});

test("the dashboard's browser code takes only types from elsewhere", () => {
  const values = edges.filter(
    ({ from, target, typeOnly }) =>
      folderOf(from) === "dashboard" &&
      !typeOnly &&
      (target === undefined || folderOf(target) !== "dashboard"),
  );
  assert.deepEqual(values.map(describe), []);
});

test("models do not know whether they are traced", () => {
  const knowing = edges.filter(
    ({ from, target }) =>
      folderOf(from) === "lib/models" && target !== undefined && folderOf(target) === "lib/graph",
  );
  assert.deepEqual(knowing.map(describe), []);
});

test("every package that is imported is declared, and the product needs no development package", () => {
  const declared = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as Record<
    string,
    Record<string, string>
  >;
  const shipped = { ...declared.dependencies, ...declared.optionalDependencies };
  const wrong = edges.filter(({ from, specifier, target, typeOnly }) => {
    if (target !== undefined || specifier.startsWith("node:")) return false;
    const name = packageOf(specifier);
    if (name in shipped) return false;
    const development = declared.devDependencies ?? {};
    const mayUseIt = free.has(folderOf(from)) || folderOf(from) === "grafana" || typeOnly;
    return !(mayUseIt && name in development);
  });
  assert.deepEqual(wrong.map(describe), []);
});

test("built-in modules are imported as node:", () => {
  // Newer releases of Node also list modules that have no other name, such as node:test.
  const bare = edges.filter(
    ({ specifier, target }) =>
      target === undefined && !specifier.startsWith("node:") && builtinModules.includes(specifier),
  );
  assert.deepEqual(bare.map(describe), []);
});

/** A cycle in a graph, as the list of its nodes, or undefined. */
function findCycle(graph: ReadonlyMap<string, ReadonlySet<string>>): string[] | undefined {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (node: string): string[] | undefined => {
    if (done.has(node)) return undefined;
    const start = path.indexOf(node);
    if (start >= 0) return [...path.slice(start), node];
    path.push(node);
    for (const next of graph.get(node) ?? []) {
      const cycle = visit(next);
      if (cycle !== undefined) return cycle;
    }
    path.pop();
    done.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const cycle = visit(node);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

function graphOf(pairs: Iterable<readonly [string, string]>): Map<string, Set<string>> {
  const graph = new Map<string, Set<string>>();
  for (const [from, to] of pairs) {
    if (!graph.has(from)) graph.set(from, new Set());
    graph.get(from)?.add(to);
  }
  return graph;
}

test("the cycle finder finds a cycle", () => {
  assert.deepEqual(
    findCycle(
      graphOf([
        ["a", "b"],
        ["b", "c"],
        ["c", "b"],
      ]),
    ),
    ["b", "c", "b"],
  );
  assert.equal(
    findCycle(
      graphOf([
        ["a", "b"],
        ["a", "c"],
        ["b", "c"],
      ]),
    ),
    undefined,
  );
});

test("folders import one another without a cycle, types included", () => {
  const ours = edges.filter(({ from }) => !free.has(folderOf(from)));
  const pairs = ours.flatMap(({ from, target }) =>
    target === undefined || folderOf(target) === folderOf(from)
      ? []
      : [[folderOf(from), folderOf(target)] as const],
  );
  assert.equal(findCycle(graphOf(pairs)), undefined);
});

test("files import one another without a cycle at run time", () => {
  const pairs = edges.flatMap(({ from, target, typeOnly, dynamic }) =>
    target === undefined || typeOnly || dynamic ? [] : [[from, target] as const],
  );
  assert.equal(findCycle(graphOf(pairs)), undefined);
});

test("ARCHITECTURE.md shows this table", () => {
  const text = readFileSync(join(packageRoot, "ARCHITECTURE.md"), "utf8");
  for (const [folder, allowed] of Object.entries(mayImport)) {
    if (allowed === "anything" || folder === "worker" || folder === "run" || free.has(folder))
      continue;
    const row = text.split("\n").find((line) => line.startsWith(`| \`${folder}/\` |`));
    assert.ok(row !== undefined, `no row for ${folder}`);
    const cells = row.split("|").map((cell) => cell.trim());
    const named = [...(cells[3] ?? "").matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");
    assert.deepEqual(
      new Set(named),
      new Set(allowed.map((name) => name.replace(/^lib\//, ""))),
      folder,
    );
  }
});
