import assert from "node:assert/strict";
import { test } from "node:test";
import { ErrorCode, NatsError } from "nats";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { NatsLink } from "#lib/wire/nats/connection";
import { EventPublisher, farewellMs } from "#lib/wire/nats/event-publisher";
import { startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";

test("a run's last event is stored though a message and the look after it get no answer", {
  ...needs("natsServer"),
  timeout: 60_000,
}, async (t) => {
  const nats = await startNats();
  t.after(() => nats.close());
  const link = await NatsLink.open(nats.settings, {
    ...{ role: "coordinator", name: "test", onNews: () => {} },
  });
  const { connection } = link;
  const request = connection.request.bind(connection);
  let numUnanswered = 0;
  // As a cluster that elects its leader: what is asked is lost, and the connection stays.
  connection.request = (subject, payload, options) => {
    if (numUnanswered === 0) return request(subject, payload, options);
    numUnanswered -= 1;
    return new Promise((_, reject) => {
      const late = (): void => reject(new NatsError("TIMEOUT", ErrorCode.Timeout));
      setTimeout(late, options?.timeout);
    });
  };
  const bus = new InProcessEventBus();
  const events = new EventPublisher(bus, {
    connect: async () => link,
    retention: { maxAgeDays: null, maxGigabytes: null },
    onNews: () => {},
  });
  events.begin({ runId: "0000000000000001", runName: "run", epoch: 1 });
  bus.publish({ type: "note", text: "first" });
  while (events.figures.numPublished < 1) await new Promise(setImmediate);
  numUnanswered = 2;
  bus.publish({ type: "run.failed", code: "E_TEST", message: "over" });
  assert.equal(await events.close(farewellMs), 0);
  assert.equal(numUnanswered, 0);
  assert.equal(events.figures.numPublished, 2);
});
