import assert from "node:assert/strict";
import { test } from "node:test";
import { listSources, readSource, withoutComments } from "#tests/support/source-files";

/**
 * A promise that rejects while nobody looks at it fails whichever test runs just then, on the machine where something
 * else took a little longer.
 */
test("a promise that is to reject is looked at before anything else is waited for", () => {
  const tests = listSources().filter((path) => path.startsWith("tests/"));
  assert.ok(tests.length > 100);
  assert.deepEqual(
    tests.flatMap((path) =>
      looksAtLate(withoutComments(readSource(path))).map((name) => `${path}: ${name}`),
    ),
    [],
  );
});

test("what comes between is found, what the promise itself waits for is not", () => {
  const made = "const late = (async () => {\n await first();\n})();\n";
  const look = "await assert.rejects(late, /no/);";
  assert.deepEqual(looksAtLate(`${made}${look}`), []);
  assert.deepEqual(looksAtLate(`${made}stop();\n${look}`), []);
  assert.deepEqual(looksAtLate(`${made}late.catch(() => {});\nawait other;\n${look}`), []);
  assert.deepEqual(looksAtLate(`${made}await other;\n${look}`), ["late"]);
  assert.deepEqual(looksAtLate(`const late = async () => first();\nawait other;\n${look}`), []);
  assert.deepEqual(looksAtLate(`${made}await other(";");\n${look.replace(", /no/", "")}`), [
    "late",
  ]);
});

/** Names of the promises given to `rejects` that were made in a statement before an `await` before it. */
function looksAtLate(source: string): readonly string[] {
  const code = source.replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
  return [...code.matchAll(/\brejects\(\s*([a-zA-Z]\w*)\s*[,)]/g)].flatMap((match) => {
    const name = match[1] as string;
    const before = code.slice(0, match.index);
    const madeAt = before.lastIndexOf(`const ${name} = `);
    if (madeAt === -1 || /^const \w+ = (async|\(\)) /.test(before.slice(madeAt))) return [];
    const between = before.slice(endOfStatement(before, madeAt)).replace(/await assert\.$/, "");
    const isLookedAt = between.includes(`${name}.catch(`);
    return /\bawait\b/.test(between) && !isLookedAt ? [name] : [];
  });
}

/** Behind the `;` that ends the statement, those within brackets left out. */
function endOfStatement(code: string, start: number): number {
  let depth = 0;
  for (let at = start; at < code.length; at++) {
    const sign = code[at] as string;
    if ("([{".includes(sign)) depth += 1;
    if (")]}".includes(sign)) depth -= 1;
    if (sign === ";" && depth === 0) return at + 1;
  }
  return code.length;
}
