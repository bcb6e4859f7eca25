import assert from "node:assert/strict";
import type { LockstepEvent } from "#lib/core/events";
import { decodeBatch, encodeBatch, encodeEvent } from "#lib/wire/nats/event-records";
import type { Target } from "#tests/fuzz/target";

const events: readonly LockstepEvent[] = [
  { type: "note", text: "a line" },
  { type: "events.dropped", numEvents: 2, numLasting: 1, fromMs: 1, toMs: 2 },
  { type: "worker.state", workerId: "worker-1", state: "idle", step: Number.NaN },
];
const head = { runId: "0123456789abcdef", runName: "run", epoch: 2, sequence: 7 };

/** What a message says, said again. */
function rewritten(bytes: Uint8Array): Uint8Array {
  const batch = decodeBatch(bytes);
  return encodeBatch(
    batch,
    batch.events.map(({ timeMs, event }) => encodeEvent(timeMs, event)),
  );
}

const message: Target = {
  name: "events/message",
  share: 10,
  open: async () => ({
    kind: "bytes",
    form: "json",
    corpus: [
      encodeBatch(
        head,
        events.map((event, index) => encodeEvent(index, event)),
      ),
    ],
    read(input) {
      const written = rewritten(input);
      // -0 is written as 0.
      assert.deepEqual(rewritten(written), written);
    },
  }),
};

export const targets: readonly Target[] = [message];
