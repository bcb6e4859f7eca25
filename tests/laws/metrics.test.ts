import assert from "node:assert/strict";
import { test } from "node:test";
import { declaredMetrics, seriesNames } from "#tests/support/metric-names";
import { listTracked, readSource } from "#tests/support/source-files";

const ours = (await declaredMetrics()).filter(({ name }) => name.startsWith("lockstep_"));

test("docs/metrics.md lists each metric with its kind, once", () => {
  const rows = new Map<string, string[]>();
  for (const line of readSource("docs/metrics.md").split("\n")) {
    const [, name = "", type = ""] = /^\| `(lockstep_\w+)[^`]*` \| (\w+) \|/.exec(line) ?? [];
    if (name !== "") rows.set(name, [...(rows.get(name) ?? []), type]);
  }
  for (const { name, type } of ours) {
    assert.ok(rows.get(name)?.every((listed) => listed === type) === true, `${name}, a ${type}`);
  }
  const declared = new Set(ours.map(({ name }) => name));
  assert.deepEqual(
    [...rows.keys()].filter((name) => !declared.has(name)),
    [],
  );
});

test("metrics that pages, rules and dashboards name exist", () => {
  const known = new Set([...seriesNames(ours), ...ours.map(({ name }) => name)]);
  const unknown: string[] = [];
  for (const path of listTracked()) {
    if (!/^(docs|grafana|deploy)\/|^[A-Z]+\.md$/.test(path)) continue;
    for (const [name] of readSource(path).matchAll(
      /(?<![\w:/.-])lockstep_[a-z0-9_]*[a-z0-9]\b(?!:)/g,
    )) {
      if (!known.has(name)) unknown.push(`${path}: ${name}`);
    }
  }
  assert.deepEqual(unknown, []);
});

test("names carry base units, and counters end in _total", () => {
  for (const { name, type } of ours) {
    assert.equal(name.endsWith("_total"), type === "counter", name);
    assert.doesNotMatch(name, /_(ms|milliseconds|minutes|hours|kb|mb|gb|percent)(_|$)/, name);
  }
});
