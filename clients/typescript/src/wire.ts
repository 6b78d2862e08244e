// The edges of the wire: addresses, and what a server says held to what makes sense.
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

/** A list, whatever is in it; empty where there is none. */
export const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** The address of a socket: without a path the protocol's own path, and the parameters. */
export function socketUrl(base: string, path: string, parameters: Readonly<Record<string, string>>): string {
  const url = new URL(base.replace(/^http/i, 'ws'));
  if (url.pathname === '/') url.pathname = path;
  url.hash = '';
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}
