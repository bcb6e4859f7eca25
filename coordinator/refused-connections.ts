import type { ConnectionLimits } from "#lib/core/connection-gate";
import type { ConnectionRefusal, LockstepEvent } from "#lib/core/events";
import type { EventBus } from "#lib/wire/event-bus";

/** Silence alone is nobody's trouble: a browser opens connections ahead of need. */
const reasons: Readonly<Partial<Record<ConnectionRefusal, string>>> = {
  crowd: "more come at once than show who they are",
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
    const why = reasons[reason];
    if (why === undefined || told.has(reason)) return;
    told.add(reason);
    bus.publish({
      type: "note",
      text: `Connections to the ${port} port are closed: ${why}. The metric lockstep_refused_connections_total counts them.`,
    });
  };
}
