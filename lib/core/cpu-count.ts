import { readFileSync } from "node:fs";
import os from "node:os";
import { posix } from "node:path";

/** The kernel's period where a file names none, microseconds. */
const defaultPeriodUs = 100_000;

/**
 * Processors that this process may keep busy: those of its affinity, or fewer where its control group, or
 * one above it, has a quota of their time. Whole ones: a thread that is stopped for a part of every
 * period keeps the others waiting, as operations end when their last thread does. libuv counts so too,
 * from Node 22.12 on; Node 20 sees no quota.
 */
export function cpuCount(quota = cpuQuota()): number {
  return Math.max(1, Math.min(os.availableParallelism(), Math.floor(quota)));
}

/**
 * The least quota of this process' control group and those above it, in processors.
 *
 * @param root where /proc and the mounts are, for tests
 * @returns infinity where there is none, or none that can be read
 */
export function cpuQuota(root = "/"): number {
  const groups = readLines(posix.join(root, "/proc/self/cgroup"));
  const mounts = readLines(posix.join(root, "/proc/self/mountinfo")).flatMap(mountOf);
  let least = Number.POSITIVE_INFINITY;
  for (const line of groups) {
    // hierarchy:controllers:path; a path may have colons.
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const isUnified = controllers === "";
    if (!isUnified && !controllers.split(",").includes("cpu")) continue;
    for (const mount of mounts) {
      if (mount.isUnified !== isUnified) continue;
      for (const folder of foldersOf(mount, path)) {
        const quota = isUnified ? unifiedQuota : legacyQuota;
        least = Math.min(least, quota(posix.join(root, folder)));
      }
    }
  }
  return least;
}

/** A mounted hierarchy that may hold quotas of processor time. */
interface Mount {
  readonly isUnified: boolean;
  /** The group that is mounted: a container often sees its own one only. */
  readonly root: string;
  readonly folder: string;
}

/** A line of mountinfo: id, parent, device, root, folder, options, tags, "-", type, source, super options. */
function mountOf(line: string): Mount[] {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const [type, , superOptions = ""] = fields.slice(dash + 1);
  const isUnified = type === "cgroup2";
  const isLegacy = type === "cgroup" && superOptions.split(",").includes("cpu");
  if (dash < 0 || !(isUnified || isLegacy)) return [];
  return [{ isUnified, root: unescape(fields[3] ?? "/"), folder: unescape(fields[4] ?? "/") }];
}

/** The kernel writes a blank in a path as \040. */
const unescape = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));

/** The folder of a group and those above it, as far as they are mounted. */
function foldersOf({ root, folder }: Mount, path: string): string[] {
  // A path that is not below the mounted group is another view of it: its own folder is the mount's.
  const relative = posix.relative(root, path);
  const isBelow = relative !== ".." && !relative.startsWith("../");
  const names = isBelow ? relative.split("/").filter((name) => name !== "") : [];
  return names.reduce(
    (folders, name) => [...folders, posix.join(folders.at(-1) ?? "", name)],
    [folder],
  );
}

/** cpu.max: "quota period", or "max period". */
function unifiedQuota(folder: string): number {
  const [quota, period] = (readLines(posix.join(folder, "cpu.max"))[0] ?? "").split(" ");
  return inProcessors(quota, period);
}

/** A quota of -1 is none. */
function legacyQuota(folder: string): number {
  const [quota] = readLines(posix.join(folder, "cpu.cfs_quota_us"));
  const [period] = readLines(posix.join(folder, "cpu.cfs_period_us"));
  return inProcessors(quota, period);
}

function inProcessors(quotaUs = "", periodUs = String(defaultPeriodUs)): number {
  const isNumber = /^\d+$/.test(quotaUs) && /^\d+$/.test(periodUs);
  const processors = isNumber ? Number(quotaUs) / Number(periodUs) : 0;
  return processors > 0 ? processors : Number.POSITIVE_INFINITY;
}

/** Nothing where the file cannot be read: another system, or another kind of control group. */
function readLines(file: string): string[] {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n");
  } catch {
    return [];
  }
}
