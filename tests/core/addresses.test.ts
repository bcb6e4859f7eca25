import assert from "node:assert/strict";
import type { NetworkInterfaceInfo } from "node:os";
import { test } from "node:test";
import { parseFlags } from "#lib/config/index";
import { isSwitchKey, isTextKey, resolveConfig } from "#lib/config/resolve";
import { isHost, isWildcard, loopbackOf } from "#lib/core/address";
import { isLockstepError } from "#lib/core/errors/index";
import {
  addressesElsewhere,
  addressHere,
  checkAdvertisedName,
  howToJoin,
} from "#run/worker-addresses";
import { shardAddresses } from "#worker/shard-addresses";

test("what stands for all addresses is known in each of its forms", () => {
  for (const host of [
    ...["0.0.0.0", "0", "0.0", "00.0.0.0", "0x0", "::", "[::]", "::0", "0:0:0:0:0:0:0:0"],
    ...["::ffff:0.0.0.0", "[::ffff:0:0]", ""],
  ]) {
    assert.ok(isWildcard(host), host);
  }
  for (const host of ["127.0.0.1", "::1", "10.0.0.0", "0.0.0.1", "a", "0a", "::ffff:1.0.0.0"]) {
    assert.ok(!isWildcard(host), host);
  }
  assert.deepEqual(["0.0.0.0", "[::]", "10.1.2.3", "a.b"].map(loopbackOf), [
    ...["127.0.0.1", "::1", "10.1.2.3", "a.b"],
  ]);
});

test("a host is a name or an address, and nothing around it", () => {
  for (const host of [
    ...["a", "lockstep-coordinator-0.lockstep-coordinator", "10.0.0.1", "::1", "[fd00::2]", "a_b"],
  ]) {
    assert.ok(isHost(host), host);
  }
  for (const host of [
    ...["", " ", "a b", "http://a", "a:1", "10.0.0.1:7000", "[::1]:7", "a/b", "a@b", "-a", "a-"],
    ...["[a]", "a\n", "x".repeat(254), "ä"],
  ]) {
    assert.ok(!isHost(host), host);
  }
});

function configured(...flags: string[]): string {
  const given = parseFlags(
    ["--model_name_or_path", "m", "--dataset", "sotu", ...flags],
    isSwitchKey,
    isTextKey,
  );
  try {
    resolveConfig(new Map(), given.values, { cpuCount: 8 });
    return "";
  } catch (error) {
    if (isLockstepError(error)) return `${error.code} ${error.message}`;
    throw error;
  }
}

test("advertise_host is one that others can call", () => {
  for (const host of ["0.0.0.0", "::", "[::]", "0", "http://10.0.0.1", "10.0.0.1:7000", "a b"]) {
    for (const listen of ["0.0.0.0:7000", "127.0.0.1:0"]) {
      const said = configured("--listen", listen, "--advertise_host", host);
      assert.match(said, /^E_CONFIG_INVALID advertise_host must be a name or an address/, host);
    }
  }
  for (const host of ["127.0.0.1", "localhost", "::1", "[::1]"]) {
    const said = configured("--listen", "0.0.0.0:7000", "--advertise_host", host);
    assert.match(said, /^E_CONFIG_CONFLICT .*listen and advertise_host/, host);
    assert.equal(configured("--advertise_host", host), "", "it listens there too");
  }
  for (const host of ["10.0.0.1", "fd00::2", "[fd00::2]", "coordinator.example.org"]) {
    assert.equal(configured("--listen", "[::]:7000", "--advertise_host", host), "");
  }
});

test("a name that nobody knows is refused before anything starts", async () => {
  const listening = { listen: "0.0.0.0:7000" };
  await checkAdvertisedName({ ...listening, advertise_host: null });
  await checkAdvertisedName({ ...listening, advertise_host: "[::1]" });
  await checkAdvertisedName({ ...listening, advertise_host: "localhost" });
  await assert.rejects(
    checkAdvertisedName(
      { ...listening, advertise_host: "lockstep-coordinator.invalid" },
      { pauseMs: 1 },
    ),
    /advertise_host must be a name that name servers know, .*got "lockstep-coordinator.invalid" \(/,
  );
});

const address = (text: string, internal = false): NetworkInterfaceInfo => {
  const family = text.includes(":") ? "IPv6" : "IPv4";
  return { address: text, family, internal, scopeid: 0 } as unknown as NetworkInterfaceInfo;
};

test("a person is told addresses at which a coordinator can be called", () => {
  const everywhere = { listen: "0.0.0.0:0", advertise_host: null };
  const machine = {
    lo: [address("127.0.0.1", true), address("::1", true)],
    eth0: [address("fd00::2"), address("10.0.0.2"), address("fe80::1")],
    eth1: [address("192.168.0.2"), address("169.254.3.4")],
  };
  assert.deepEqual(addressesElsewhere(everywhere, 7, machine), ["10.0.0.2:7", "192.168.0.2:7"]);
  assert.deepEqual(addressesElsewhere({ ...everywhere, listen: "[::]:0" }, 7, machine), [
    ...["10.0.0.2:7", "192.168.0.2:7", "[fd00::2]:7"],
  ]);
  assert.deepEqual(addressesElsewhere(everywhere, 7, { lo: machine.lo }), []);
  const named = { listen: "0.0.0.0:0", advertise_host: "fd00::9" };
  assert.deepEqual(addressesElsewhere(named, 7, machine), ["[fd00::9]:7"]);
  assert.equal(addressHere(named, 7), "[fd00::9]:7");
  assert.equal(addressHere(everywhere, 7), "127.0.0.1:7");
  assert.equal(addressHere({ ...everywhere, listen: "[::]:0" }, 7), "[::1]:7");
  assert.equal(
    howToJoin({ listen: "127.0.0.1:0", advertise_host: null }, 7),
    "Workers join with: lockstep worker --coordinator 127.0.0.1:7",
  );
  assert.doesNotMatch(howToJoin(everywhere, 7), /0\.0\.0\.0/);
});

test("a worker calls shards that have no host as it called the coordinator, and none that nobody can call", () => {
  assert.deepEqual(shardAddresses([":7001", "b:7002"], "10.0.0.2:7000"), [
    ...["10.0.0.2:7001", "b:7002"],
  ]);
  assert.deepEqual(shardAddresses([":7001"], "[fd00::2]:7000"), ["[fd00::2]:7001"]);
  for (const sent of [
    ...["0.0.0.0:1", "[::]:1", "a", "a:", ":0", "a:0", "a:65536", "a:x", "http://a:1", "a b:1", ""],
  ]) {
    assert.throws(
      () => shardAddresses(["b:1", sent], "a:7000"),
      (error) => isLockstepError(error) && error.code === "E_SHARD_ADDRESS",
      sent,
    );
  }
  assert.throws(() => shardAddresses([], "a:7000"), /there is none/);
});
