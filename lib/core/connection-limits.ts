/** How many connections a port keeps open at once, by what they have shown. */
export interface ConnectionCounts {
  /** Those that have not reached the server yet: each takes a descriptor and 3 kB. */
  readonly maxWaiting: number;
  /** Those that have, and have not shown yet that they may be here. */
  readonly maxHandedOver: number;
  readonly maxProven: number;
}

/** Each takes some 60 kB, with TLS 100 kB: what a session or a handshake needs. */
const maxHandedOver = 64;

/** Of a port that workers call: the control port, or a shard's. */
export const workerPortCounts: ConnectionCounts = {
  // Twice as many as are handed over: workers that start together.
  maxWaiting: 128,
  maxHandedOver,
  // Workers of a run, by far.
  maxProven: 4_096,
};

/** Of a port of HTTP: a few browsers, which open some connections ahead of need, and what scrapes metrics. */
export const httpPortCounts: ConnectionCounts = {
  maxWaiting: 64,
  maxHandedOver,
  // Those that have shown a token; without one, that have sent a request.
  maxProven: 256,
};
