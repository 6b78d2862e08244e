// The wire between fake sockets and a fake server: it delays, it parts, it breaks, and it keeps the order.
//
// It must never deliver what was sent on a connection after that connection broke.

import type { Environment, SocketLike } from '../connection/environment.js';
import type { VirtualClock } from './clock.js';

/** What the server's end of a connection does. */
export interface ServerEnd {
  /** The socket is open for both. */
  start(): void;
  text(text: string): void;
  /** The client closed, or the wire broke. */
  gone(): void;
}

/** Takes a connection, or refuses it with a close code (1006: it never opens). */
export type Accept = (url: string, wire: Wire) => ServerEnd | number;

type Parcel = () => void;

/** One direction of a connection: nothing overtakes. */
class Lane {
  #queue: { at: number; parcel: Parcel }[] = [];
  #lastAt = 0;

  constructor(readonly network: Network) {}

  carry(parcel: Parcel): void {
    const { clock, delayMs } = this.network;
    this.#lastAt = Math.max(this.#lastAt, clock.now() + delayMs);
    this.#queue.push({ at: this.#lastAt, parcel });
    clock.setTimer(() => this.pump(), this.#lastAt - clock.now());
  }

  /** Delivers what is due, unless the network is parted. */
  pump(): void {
    while (!this.network.isParted) {
      const [first] = this.#queue;
      if (!first || first.at > this.network.clock.now()) return;
      this.#queue.shift();
      first.parcel();
    }
  }

  clear(): void {
    this.#queue = [];
  }
}

/** A seeded source of numbers in [0, 1), so that a test can be repeated. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One connection, seen from the server. */
export class Wire {
  readonly #up: Lane;
  readonly #down: Lane;
  #end: ServerEnd | null = null;

  constructor(
    readonly network: Network,
    readonly socket: FakeSocket,
  ) {
    this.#up = new Lane(network);
    this.#down = new Lane(network);
  }

  open(accept: Accept): void {
    this.#up.carry(() => {
      const end = accept(this.socket.url, this);
      if (typeof end === 'number') return this.close(end, '', end !== 1006);
      this.#end = end;
      this.#down.carry(() => this.socket.opened());
      end.start();
    });
  }

  /** From the client. */
  receive(text: string): void {
    this.#up.carry(() => this.#end?.text(text));
  }

  /** To the client. */
  send(text: string): void {
    this.#down.carry(() => this.socket.heard(text));
  }

  /** The server closes. */
  close(code: number, reason: string, opens = false): void {
    this.#end = null;
    this.#up.clear();
    this.#down.carry(() => {
      if (opens) this.socket.opened();
      this.#over();
      this.socket.closed(code, reason);
    });
  }

  /** The client closes. */
  left(): void {
    const end = this.#end;
    this.#over();
    // The server hears of it a little later.
    this.network.clock.setTimer(() => end?.gone(), this.network.delayMs);
  }

  /** The connection breaks; what is under way is lost. */
  break(): void {
    const end = this.#end;
    this.#over();
    end?.gone();
    this.socket.closed(1006, '');
  }

  /** What was held back while the network was parted. */
  release(): void {
    this.#up.pump();
    this.#down.pump();
  }

  #over(): void {
    this.#end = null;
    this.#up.clear();
    this.#down.clear();
    this.network.wires.delete(this);
  }
}

/** A socket whose other end is a fake server. */
export class FakeSocket implements SocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  readonly bufferedAmount = 0;
  readonly #wire: Wire;
  #isOpen = false;

  constructor(
    readonly url: string,
    network: Network,
  ) {
    this.#wire = new Wire(network, this);
    network.wires.add(this.#wire);
    this.#wire.open(network.accept);
  }

  send(data: string): void {
    if (!this.#isOpen) throw new Error('the socket is not open');
    this.#wire.receive(data);
  }

  close(): void {
    this.#isOpen = false;
    this.#wire.left();
  }

  opened(): void {
    this.#isOpen = true;
    this.onopen?.({} as never);
  }

  heard(data: unknown): void {
    this.onmessage?.({ data } as never);
  }

  closed(code: number, reason: string): void {
    this.#isOpen = false;
    this.onclose?.({ code, reason } as never);
  }
}

/** All connections of a test. */
export class Network {
  readonly wires = new Set<Wire>();
  /** One way, in ms. */
  delayMs = 1;
  isParted = false;
  readonly #wakers = new Set<(by: 'online' | 'visible') => void>();

  constructor(
    readonly clock: VirtualClock,
    readonly accept: Accept,
    readonly random: () => number,
  ) {}

  /** The world for a client. */
  get environment(): Environment {
    const { clock } = this;
    return {
      socket: (url) => new FakeSocket(url, this),
      now: () => clock.now(),
      wall: () => Date.UTC(2026, 0, 1) + clock.now(),
      random: this.random,
      setTimer: (action, ms) => clock.setTimer(action, ms),
      clearTimer: (timer) => clock.clearTimer(timer),
      onWake: (listener) => {
        this.#wakers.add(listener);
        return () => this.#wakers.delete(listener);
      },
    };
  }

  /** Tells the clients that the network or the page is back. */
  wake(by: 'online' | 'visible'): void {
    for (const waker of [...this.#wakers]) waker(by);
  }

  /** How many clients listen for that. */
  get listening(): number {
    return this.#wakers.size;
  }

  heal(): void {
    this.isParted = false;
    for (const wire of [...this.wires]) wire.release();
  }

  /** Breaks every connection, or one of them. */
  breakAll(): void {
    for (const wire of [...this.wires]) wire.break();
  }
}
