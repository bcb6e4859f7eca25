import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { DirectoryStore } from "#lib/queue/directory-store";

/*
 * Writers of a directory that come between each other's calls of the file system.
 */

/** Called before the n-th call of the file system that a writer makes, from 0. */
type Between = (numCalls: number) => Promise<void>;

const writer = new AsyncLocalStorage<{ numCalls: number; readonly between: Between }>();
const calls = ["open", "stat", "link", "rm", "readdir"] as const;
const own = { open: fs.open, stat: fs.stat, link: fs.link, rm: fs.rm, readdir: fs.readdir };

let root: string;
before(async () => {
  root = await fs.mkdtemp(join(tmpdir(), "lockstep-interleaved-"));
  for (const name of calls) {
    const call = own[name] as (...values: unknown[]) => Promise<unknown>;
    Object.assign(fs, {
      [name]: async (...values: unknown[]) => {
        const by = writer.getStore();
        if (by !== undefined) await by.between(by.numCalls++);
        return call(...values);
      },
    });
  }
  syncBuiltinESMExports();
});
after(async () => {
  Object.assign(fs, own);
  syncBuiltinESMExports();
  await fs.rm(root, { recursive: true, force: true });
});

/** @returns what the action comes to, and how many calls it made */
async function interleaved<T>(between: Between, action: () => Promise<T>): Promise<[T, number]> {
  const state = { numCalls: 0, between };
  return [await writer.run(state, action), state.numCalls];
}
/** Of another process. */
const elsewhere = <T>(action: () => Promise<T>): Promise<T> => writer.exit(action);

function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

/** Adds a word to what a record holds, beside the revision that was read. */
async function add(store: DirectoryStore, word: string): Promise<boolean> {
  const { value = "", revision = 0 } = (await store.get("jobs", "k")) ?? {};
  return store.write("jobs", "k", `${value}${word} `, revision);
}

async function words(store: DirectoryStore): Promise<readonly string[]> {
  const { value = "" } = (await store.get("jobs", "k")) ?? {};
  return value.trimEnd().split(" ");
}

/** A store whose record was written to so often. */
async function storeWith(numWrites: number): Promise<DirectoryStore> {
  const store = await DirectoryStore.open(await fs.mkdtemp(join(root, "q-")));
  for (let i = 0; i < numWrites; i++) assert.ok(await add(store, `${i}`));
  return store;
}

test("a writer is told what became of its write, whoever writes between two of its calls", async () => {
  let numRefused = 0;
  let numTrue = 0;
  for (const numBefore of [0, 1, 2, 3]) {
    for (const numBetween of [1, 2, 3, 4]) {
      let numCalls = 1;
      for (let at = 0; at < numCalls; at++) {
        const store = await storeWith(numBefore);
        const others = async (call: number): Promise<void> => {
          if (call !== at) return;
          await elsewhere(async () => {
            for (let i = 0; i < numBetween; i++) assert.ok(await add(store, `b${i}`));
          });
        };
        const [isWritten, made] = await interleaved(others, () => add(store, "a"));
        numCalls = Math.max(numCalls, made);
        // What the others did made for more calls than it has without them.
        if (made <= at) continue;
        const found = await words(store);
        const what = `${numBefore} before, ${numBetween} before call ${at}: ${found.join(" ")}`;
        assert.equal(isWritten, found.includes("a"), what);
        assert.equal(found.length, numBefore + numBetween + (isWritten ? 1 : 0), what);
        if (isWritten) numTrue++;
        else numRefused++;
      }
    }
  }
  assert.ok(numTrue > 50 && numRefused > 50, `${numTrue} ${numRefused}`);
});

test("so is one of three, of whom one stops while it removes old revisions", async () => {
  let numCases = 0;
  for (const numBetween of [0, 2, 3]) {
    let numCalls = 1;
    for (let at = 0; at < numCalls; at++) {
      let numOthersCalls = 1;
      for (let stopsAt = 0; stopsAt < numOthersCalls; stopsAt++) {
        const store = await storeWith(3);
        let last: Promise<[boolean, number]> = Promise.resolve([false, 0]);
        const goOn = gate();
        const others = (call: number): Promise<void> =>
          call !== at
            ? Promise.resolve()
            : elsewhere(async () => {
                for (let i = 0; i < numBetween; i++) assert.ok(await add(store, `b${i}`));
                const isStopped = gate();
                const stop: Between = async (otherCall) => {
                  if (otherCall !== stopsAt) return;
                  isStopped.open();
                  await goOn.opened;
                };
                last = interleaved(stop, () => add(store, "c"));
                await Promise.race([isStopped.opened, last]);
              });
        const [isWritten, made] = await interleaved(others, () => add(store, "a"));
        goOn.open();
        const [isLastWritten, othersMade] = await last;
        numCalls = Math.max(numCalls, made);
        if (made <= at) continue;
        numOthersCalls = Math.max(numOthersCalls, othersMade);
        const found = await words(store);
        const what = `${numBetween} before call ${at}, stopped at ${stopsAt}: ${found.join(" ")}`;
        assert.deepEqual(
          [isWritten, isLastWritten],
          [found.includes("a"), found.includes("c")],
          what,
        );
        const length = 3 + numBetween + Number(isWritten) + Number(isLastWritten);
        assert.equal(found.length, length, what);
        numCases++;
      }
    }
  }
  assert.ok(numCases > 100, `${numCases}`);
});

test("a link that a file server made twice is its writer's", async () => {
  const store = await storeWith(2);
  const [isWritten] = await interleaved(
    async () => {},
    () => {
      Object.assign(fs, {
        link: async (file: string, name: string) => {
          await own.link(file, name);
          return own.link(file, name);
        },
      });
      syncBuiltinESMExports();
      return add(store, "a");
    },
  );
  assert.ok(isWritten);
  assert.deepEqual(await words(store), ["0", "1", "a"]);
});
