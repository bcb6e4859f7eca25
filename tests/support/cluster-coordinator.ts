import { Coordinator } from "#coordinator/coordinator";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { coordinatorOptions } from "#tests/support/cluster";

/**
 * A coordinator process that can be killed: sends its address, each event's type, and its SHA-256.
 *   LOCKSTEP_TEST_OPTIONS    options of the coordinator beside those that all tests have, in JSON
 */
const bus = new InProcessEventBus();
const coordinator = new Coordinator(
  coordinatorOptions(Number(process.env["LOCKSTEP_TEST_STEPS"]), bus, {
    ...JSON.parse(process.env["LOCKSTEP_TEST_OPTIONS"] ?? "{}"),
  }),
);
const { controlAddress } = await coordinator.start();
bus.subscribe(({ type }) => process.send?.({ type }));
process.send?.({ controlAddress });
const { mastersSha256 } = await coordinator.run();
process.send?.({ mastersSha256 });
process.disconnect?.();
