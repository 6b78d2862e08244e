// What a connection needs of the world around it: sockets, a clock, random numbers, timers and the
// signs that the network or the page is back. Tests bring their own.
//
// It must never touch `window`, `document` or `WebSocket` before a connection needs them: the module is
// loaded on servers, too.

/** The part of a `WebSocket` that is used; those of browsers and of Node's `ws` have it. */
export interface SocketLike {
  send(data: string): void;
  close(code?: number, reason?: string): void;
  readonly bufferedAmount?: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
}

/** How a socket is made. */
export type SocketConstructor = new (url: string, protocols?: string | string[]) => SocketLike;

/** The world around a connection. */
export interface Environment {
  /** Opens a socket; may throw. */
  socket(url: string): SocketLike;
  /** Milliseconds on a clock that does not go back, nor stand still while the machine sleeps. */
  now(): number;
  /** Milliseconds since 1970. */
  wall(): number;
  /** A number in [0, 1). */
  random(): number;
  setTimer(action: () => void, ms: number): unknown;
  clearTimer(timer: unknown): void;
  /** Calls back when the network or the page comes back; answers how to stop that. */
  onWake(listener: (by: 'online' | 'visible') => void): () => void;
}

function onWake(listener: (by: 'online' | 'visible') => void): () => void {
  const { addEventListener: add, removeEventListener: remove, document: page } = globalThis;
  const online = () => listener('online');
  const visible = () => {
    if (page.visibilityState === 'visible') listener('visible');
  };
  add?.('online', online);
  page?.addEventListener('visibilitychange', visible);
  return () => {
    remove?.('online', online);
    page?.removeEventListener('visibilitychange', visible);
  };
}

/** The real world, with the runtime's own `WebSocket` unless another one is given (Node 20 has none). */
export function realEnvironment(WebSocket?: SocketConstructor): Environment {
  // How far the wall's clock was ahead at most. Many runtimes' own one stands still while the machine sleeps.
  let ahead = 0;
  return {
    socket: (url) => {
      const Constructor: SocketConstructor | undefined = WebSocket ?? globalThis.WebSocket;
      // Trying again would not bring one.
      if (!Constructor) throw { closed: { code: 1005, reason: 'pass the option WebSocket' } };
      return new Constructor(url);
    },
    now: () => {
      const at = performance.now();
      ahead = Math.max(ahead, Date.now() - at);
      return at + ahead;
    },
    wall: Date.now,
    random: Math.random,
    setTimer: (action, ms) => setTimeout(action, ms),
    clearTimer: (timer) => clearTimeout(timer as Parameters<typeof clearTimeout>[0]),
    onWake,
  };
}
