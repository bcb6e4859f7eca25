import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os, { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { cpuCount, cpuQuota } from "#lib/core/cpu-count";

// Trees of files as kernels and container engines lay them out.

const directory = mkdtempSync(join(tmpdir(), "lockstep-cgroup-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let numTrees = 0;

function quotaIn(files: Readonly<Record<string, string>>): number {
  const root = join(directory, String(numTrees++));
  for (const [path, content] of Object.entries(files)) {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${content}\n`);
  }
  return cpuQuota(root);
}

const mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
const mountV1 = (root = "/"): string =>
  `33 31 0:30 ${root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct`;
const v2 = (group: string, files: Readonly<Record<string, string>>): Record<string, string> => ({
  "proc/self/cgroup": `0::${group}`,
  "proc/self/mountinfo": `22 1 8:1 / / rw - ext4 /dev/sda1 rw\n${mountV2}`,
  ...files,
});
const v1 = (
  group: string,
  files: Readonly<Record<string, string>>,
  root?: string,
): Record<string, string> => ({
  "proc/self/cgroup": `5:memory:/elsewhere\n4:cpu,cpuacct:${group}\n1:name=systemd:/init\n0::/`,
  "proc/self/mountinfo": `40 31 0:9 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n${mountV1(root)}`,
  ...files,
});

test("a container's own group, as its namespace shows it", () => {
  assert.equal(quotaIn(v2("/", { "sys/fs/cgroup/cpu.max": "50000 100000" })), 0.5);
  assert.equal(quotaIn(v2("/", { "sys/fs/cgroup/cpu.max": "max 100000" })), Infinity);
  assert.equal(quotaIn(v2("/", {})), Infinity);
});

test("the least quota of a group and all above it", () => {
  const nested = (own: string, above: string, top: string) =>
    quotaIn(
      v2("/pods/burst:able/job", {
        "sys/fs/cgroup/pods/burst:able/job/cpu.max": own,
        "sys/fs/cgroup/pods/burst:able/cpu.max": above,
        "sys/fs/cgroup/pods/cpu.max": top,
        "sys/fs/cgroup/pods/other/cpu.max": "1000 100000",
      }),
    );
  assert.equal(nested("400000 100000", "max 100000", "max 100000"), 4);
  assert.equal(nested("max 100000", "300000 200000", "max 100000"), 1.5);
  assert.equal(nested("400000 100000", "300000 100000", "200000 100000"), 2);
});

test("the first kind of control groups", () => {
  const folder = "sys/fs/cgroup/cpu,cpuacct";
  const files = (path: string, quota: string): Record<string, string> => ({
    [`${folder}${path}/cpu.cfs_quota_us`]: quota,
    [`${folder}${path}/cpu.cfs_period_us`]: "50000",
  });
  assert.equal(quotaIn(v1("/batch", files("/batch", "75000"))), 1.5);
  assert.equal(quotaIn(v1("/batch", files("/batch", "-1"))), Infinity);
  const both = { ...files("/batch", "-1"), ...files("/batch/job", "100000") };
  assert.equal(quotaIn(v1("/batch/job", both)), 2);
  // A container that sees the host's path, and its own group alone at the mount.
  assert.equal(quotaIn(v1("/docker/1f", files("", "50000"), "/docker/1f")), 1);
  assert.equal(quotaIn(v1("/docker/1f/job", files("/job", "25000"), "/docker/1f")), 0.5);
  assert.equal(quotaIn(v1("/", files("", "50000"), "/docker/1f")), 1);
});

test("both kinds side by side: the one that has the controller counts", () => {
  const files = v1("/batch", {
    "sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us": "50000",
  });
  const mountinfo = `${files["proc/self/mountinfo"]}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`;
  assert.equal(quotaIn({ ...files, "proc/self/mountinfo": mountinfo }), 3);
});

test("a folder with a blank in its name", () => {
  const mountinfo = mountV2.replace("/sys/fs/cgroup", "/sys/my\\040groups");
  const files = v2("/", { "sys/my groups/cpu.max": "200000 100000" });
  assert.equal(quotaIn({ ...files, "proc/self/mountinfo": mountinfo }), 2);
});

test("what cannot be read or makes no sense is no quota", () => {
  for (const content of [
    ...["", "max", "0 100000", "-5 100000", "100000 0", "half a core", "1e5 100000", "NaN NaN"],
  ]) {
    assert.equal(quotaIn(v2("/", { "sys/fs/cgroup/cpu.max": content })), Infinity, content);
  }
  assert.equal(quotaIn({}), Infinity);
  assert.equal(quotaIn({ "proc/self/cgroup": "0::/", "proc/self/mountinfo": "\n1 2 3" }), Infinity);
  assert.equal(quotaIn({ "proc/self/cgroup": "nonsense\n0:\n::" }), Infinity);
  // A folder where the file should be.
  assert.equal(quotaIn(v2("/", { "sys/fs/cgroup/cpu.max/x": "1 1" })), Infinity);
  // Without a period the kernel's own holds.
  assert.equal(quotaIn(v2("/", { "sys/fs/cgroup/cpu.max": "50000" })), 0.5);
  // A group of a namespace that lies outside of what is mounted.
  assert.equal(quotaIn(v2("/../other", { "sys/fs/cgroup/cpu.max": "50000 100000" })), 0.5);
});

test("whole processors, at least one, and no more than there are", () => {
  const cpus = os.availableParallelism();
  const within = (quota: number): number => cpuCount(quota);
  assert.equal(within(0.5), 1);
  assert.equal(within(1.9), 1);
  assert.equal(within(cpus + 0.5), cpus);
  assert.equal(within(1e12), cpus);
  assert.equal(within(Infinity), cpus);
});
