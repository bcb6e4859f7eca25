import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { DeviceKinds } from "#coordinator/device-kinds";
import type { LockstepError } from "#lib/core/errors/index";
import type { RegisterRequest } from "#lib/wire/control-messages";
import { testIdentity } from "#tests/support/scripted-member";

const mismatch = { code: "E_DEVICE_KIND_MISMATCH" };

type Options = Partial<ConstructorParameters<typeof DeviceKinds>[0]>;

/** A run's kinds with a clock of its own. */
function parts(options: Options = {}) {
  const clock = { ms: 1_000 };
  const kinds = new DeviceKinds({
    ...{ plannedWorkers: 3, deterministic: true, waitMs: 30_000, forsakenAfterMs: 600_000 },
    now: () => clock.ms,
    ...options,
  });
  const told: string[] = [];
  kinds.watch({
    switched: (kind) => told.push(`switched to ${kind}`),
    forsaken: (error: LockstepError) => told.push(`forsaken: ${error.code}`),
  });
  return { clock, kinds, told };
}

const device = (deviceKind: string, incarnation: string = randomUUID()): RegisterRequest => ({
  ...testIdentity("w"),
  ...{ deviceKind, incarnation },
});

test("the first worker chooses for nobody but those that have its kind", async () => {
  const { kinds, told } = parts();
  const [odd, a, b] = [device("odd"), device("K"), device("K")];
  assert.equal(kinds.admits(odd), false);
  assert.equal(kinds.admits(odd), false, "who knocks twice is one");
  assert.equal(kinds.admits(a), false);
  assert.match(kinds.waiting, /^2 workers here; .* more than half of 3 workers, 30 s at most$/);
  assert.equal(kinds.kind, undefined);
  assert.equal(kinds.admits(b), true, "two of three");
  assert.equal(kinds.kind, "K");
  assert.equal(kinds.admits(a), true);
  assert.equal(await kinds.device(), b, "of the chosen kind");
  // As long as nothing is computed, others may still become more.
  assert.equal(kinds.admits(odd), false);
  kinds.worked("K");
  assert.throws(() => kinds.admits(odd), { ...mismatch, message: /"odd".*"K"/ });
  assert.deepEqual(told, []);
});

test("what few have is chosen where nobody else came for a while", () => {
  const { kinds, clock } = parts();
  const early = device("A");
  assert.equal(kinds.admits(early), false);
  clock.ms += 3_000;
  assert.equal(kinds.admits(early), false);
  // Another comes, and is gone.
  kinds.knocked(device("B"));
  for (let knock = 0; knock < 9; knock++) {
    assert.equal(kinds.kind, undefined);
    clock.ms += 3_000;
    kinds.knocked(early);
  }
  assert.equal(kinds.admits(early), true, "30 seconds after its first knock");
});

test("until something is computed, the kind is that of most workers", () => {
  const { kinds, told } = parts({ waitMs: 0 });
  const members = [device("A"), device("B"), device("B")];
  const [first, second, third] = members as [RegisterRequest, RegisterRequest, RegisterRequest];
  assert.equal(kinds.admits(first), true);
  kinds.entered(first);
  assert.equal(kinds.admits(second), false, "one against one");
  assert.equal(kinds.admits(third), true, "two against one");
  assert.deepEqual(told, ["switched to B"]);
  kinds.left(first);
  assert.equal(kinds.admits(second), true);
  assert.equal(kinds.admits(first), false);
  kinds.entered(second);
  // Bytes that came before their worker was expelled count, and so does their kind.
  kinds.worked("A");
  assert.deepEqual(told, ["switched to B", "switched to A"]);
  kinds.worked("B");
  assert.equal(kinds.kind, "A", "for good");
  assert.throws(() => kinds.admits(second), mismatch);
});

test("a kind whose workers did nothing and left is not the run's", () => {
  const { kinds } = parts({ plannedWorkers: 1 });
  const [a, b] = [device("A"), device("B")];
  assert.equal(kinds.admits(a), true);
  kinds.entered(a);
  assert.equal(kinds.admits(b), false, "A is here");
  kinds.left(a);
  assert.equal(kinds.admits(b), true);
  assert.equal(kinds.kind, "B");
});

test("where a run starts its own workers, those choose", async () => {
  const { kinds } = parts({
    plannedWorkers: 1,
    isOwn: (incarnation) => incarnation.startsWith("own/"),
  });
  const strangers = [device("S"), device("S"), device("S")];
  for (const stranger of strangers) assert.equal(kinds.admits(stranger), false);
  const own = device("K", "own/1/2");
  assert.equal(kinds.admits(own), true);
  assert.equal(await kinds.device(), own);
  for (const stranger of strangers) assert.equal(kinds.admits(stranger), false);
  assert.equal(kinds.admits(device("K")), true, "a stranger of the same kind may help");
});

test("a run that goes on keeps its kind, and one without equal bits has none", async () => {
  const resumed = parts({ fixedKind: "C" }).kinds;
  assert.throws(() => resumed.admits(device("B")), { ...mismatch, message: /"B".*"C"/ });
  assert.equal((await resumed.device()).deviceKind, "B", "to compare");
  assert.equal(resumed.admits(device("C")), true);

  const loose = parts({ fixedKind: "C", deterministic: false }).kinds;
  assert.equal(loose.admits(device("A")), true);
  assert.equal(loose.admits(device("B")), true);
  loose.worked("B");
  assert.equal(loose.admits(device("A")), true);
});

test("a registration again keeps its voice", () => {
  const { kinds, told } = parts({ waitMs: 0 });
  const [a, b] = [device("A"), device("B")];
  assert.equal(kinds.admits(a), true);
  kinds.entered(a);
  assert.equal(kinds.admits(a), true);
  kinds.left(a);
  kinds.entered(a);
  assert.equal(kinds.admits(b), false);
  assert.deepEqual(told, []);
});

test("a run ends by name when for long nobody of its kind is left and others come", () => {
  const { kinds, clock, told } = parts({ plannedWorkers: 2 });
  const [a, another] = [device("A"), device("A")];
  kinds.knocked(a);
  assert.equal(kinds.admits(another), true);
  kinds.entered(a);
  kinds.worked("A");
  const refuse = (): void => assert.throws(() => kinds.admits(device("B")), mismatch);
  clock.ms += 10_000_000;
  for (let i = 0; i < 5; i++) refuse();
  assert.deepEqual(told, [], "one is here");
  kinds.left(a);
  for (let i = 0; i < 5; i++) refuse();
  clock.ms += 599_999;
  refuse();
  assert.deepEqual(told, [], "it may come back");
  // It does.
  assert.equal(kinds.admits(a), true);
  kinds.entered(a);
  kinds.left(a);
  clock.ms += 599_999;
  refuse();
  clock.ms += 1;
  assert.deepEqual(told, []);
  refuse();
  assert.deepEqual(told, ["forsaken: E_DEVICE_KIND_GONE"]);
});

test("whoever knocks under names without end fills no table", () => {
  const { kinds, clock } = parts({ plannedWorkers: 100_000 });
  for (let i = 0; i < 5_000; i++) kinds.knocked(device("S"));
  assert.match(kinds.waiting, /^4,096 workers /);
  clock.ms += 5_001;
  kinds.knocked(device("K"));
  assert.match(kinds.waiting, /^1 worker /);
});
