import assert from "node:assert/strict";
import { test } from "node:test";
import { WrongTokens } from "#lib/core/wrong-tokens";

/** Counts until the address has to wait. */
function spend(tokens: WrongTokens, address: string): number {
  let numTaken = 0;
  while (tokens.waitSeconds(address) === 0) {
    tokens.count(address);
    numTaken += 1;
  }
  return numTaken;
}

test("an address has ten wrong tokens at once, then one every six seconds, and never more than ten", () => {
  let nowMs = 1_000;
  const tokens = new WrongTokens(() => nowMs);
  assert.equal(spend(tokens, "10.0.0.1"), 10);
  assert.equal(tokens.waitSeconds("10.0.0.1"), 6);
  nowMs += 5_999;
  assert.equal(tokens.waitSeconds("10.0.0.1"), 1);
  nowMs += 1;
  assert.equal(spend(tokens, "10.0.0.1"), 1);
  nowMs += 3_600_000;
  assert.equal(spend(tokens, "10.0.0.1"), 10);
  assert.equal(tokens.waitSeconds("10.0.0.2"), 0);
});

test("a host has no more of them by its other IPv6 addresses, or by another spelling", () => {
  const tokens = new WrongTokens(() => 0);
  assert.equal(spend(tokens, "2001:db8:1:2::1"), 10);
  for (const same of ["2001:db8:1:2::ffff", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::1%eth0"]) {
    assert.equal(spend(tokens, same), 0, same);
  }
  assert.equal(spend(tokens, "2001:db8:1:3::1"), 10);
  assert.equal(spend(tokens, "::ffff:10.0.0.9"), 10);
  assert.equal(spend(tokens, "10.0.0.9"), 0);
  assert.equal(spend(tokens, "fe80::1"), 10);
  assert.equal(spend(tokens, "fe80::2"), 0);
});

test("of many addresses the first ones are forgotten, not the memory's limit", () => {
  const tokens = new WrongTokens(() => 0);
  spend(tokens, "192.0.2.1");
  for (let each = 0; each < 4_096; each++) tokens.count(`10.0.${each >> 8}.${each & 255}`);
  assert.equal(spend(tokens, "192.0.2.1"), 10);
});
