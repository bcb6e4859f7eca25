"use strict";
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const releases = JSON.parse(readFileSync(join(__dirname, "..", "package.json"), "utf8"))
  .engines.node.split("||")
  .map((range) => /^\s*>=(\d+)\.(\d+) <(\d+)\s*$/.exec(range).slice(1).map(Number));

/** Whether package.json names a release of Node, such as 22.2.0, in its engines. */
exports.supportsNode = (version) => {
  const [major, minor] = version.replace(/^v/, "").split(".").map(Number);
  return releases.some(
    ([fromMajor, fromMinor, beforeMajor]) =>
      major < beforeMajor && (major > fromMajor || (major === fromMajor && minor >= fromMinor)),
  );
};

/** The releases in words: `Node 20 (from 20.15), 22 (from 22.2) or 24`. */
exports.supportedNode = () => {
  const names = releases.map(([major, minor]) =>
    minor === 0 ? `${major}` : `${major} (from ${major}.${minor})`,
  );
  return `Node ${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
};
