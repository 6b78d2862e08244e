// What a server says, held to what makes sense: numbers in their ranges, times within an hour.
//
// It must never trust a field's type: a frame of a stranger may have any.

/** A server can't make a client wait or listen for longer than this, in ms. */
const SPAN_MAX = 3_600_000;
/** Nor ask for signs of life more often. */
const HEARTBEAT_MIN = 1000;

/** A wait that the server names, in ms; null when it names none. */
export function span(value: unknown): number | null {
  return typeof value === 'number' && value >= 0 ? Math.min(value, SPAN_MAX) : null;
}

/** The heartbeat's interval in ms; 25 s where the server says nothing that makes sense. */
export function heartbeat(value: unknown): number {
  return Math.max(span(value) ?? 25_000, HEARTBEAT_MIN);
}
