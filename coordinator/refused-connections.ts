import type { ConnectionLimits } from "#lib/core/connection-gate";
import type { ConnectionRefusal, LockstepEvent } from "#lib/core/events";
import type { EventBus } from "#lib/wire/event-bus";

const reasons: Readonly<Record<ConnectionRefusal, string>> = {
  crowd: "more come at once than show who they are",
  silence: "they show nothing of who they are",
  full: "as many as may be are open",
  descriptors: "the process has only the descriptors left that saving needs (ulimit -n)",
};

/** Tells of connections that a port closed: to metrics each, to a person the first of a kind. */
export function refusalsOf(
  bus: EventBus,
  port: Extract<LockstepEvent, { type: "connections.refused" }>["port"],
): NonNullable<ConnectionLimits["onRefused"]> {
  const told = new Set<ConnectionRefusal>();
  return (reason, numConnections) => {
    bus.publish({ type: "connections.refused", port, reason, numConnections });
    if (told.has(reason)) return;
    told.add(reason);
    bus.publish({
      type: "note",
      text: `Connections to the ${port} port are closed: ${reasons[reason]}. The metric lockstep_refused_connections_total counts them.`,
    });
  };
}
