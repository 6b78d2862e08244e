// Carries out what the reducer asks for: one socket and one timer at most.
//
// It must never decide anything: what happens becomes an event, what is to be done comes as an effect.
// Sockets that were given up are not listened to any more.

import { report } from '../emitter.js';
import { classify, describe, type Failure, type WSErrorClass } from './classify.js';
import type { Environment, SocketLike } from './environment.js';
import { IDLE, type Life, type LifeConfig, type LifeEvent, transition } from './life.js';

/** How an attempt, or a connection, ended. */
export interface Loss {
  failure: Failure;
  class: WSErrorClass;
  /** In words. */
  text: string;
  /** When the next attempt comes, in ms; null when none does by itself soon. */
  delayMs: number | null;
}

/** Who is told what happens. None of them may throw. */
export interface Handlers {
  /** Where to connect to; asked before each attempt. What it throws may have `closed` to say how the attempt ended. */
  url(): string | Promise<string>;
  opened?(): void;
  /** One message, whatever it is. */
  message(data: unknown): void;
  /** The server is suspiciously quiet: say something that it answers. */
  ping(): void;
  failed(loss: Loss): void;
  changed(life: Life, before: Life): void;
  /** What is known of an end beside its close code; for whoever knows more. */
  explain?(code: number): Partial<Closed>;
}

/** How a connection is over, as the reducer's event says it. */
export interface Closed {
  code: number;
  reason: string;
  after?: number | null;
  again?: boolean;
}

/** An event before it is known when it happens. */
type Unstamped = LifeEvent extends infer E ? (E extends LifeEvent ? Omit<E, 'at' | 'random'> : never) : never;

/** How many bytes may wait in the socket before a server's pings go unanswered: everything sent counts as life. */
const PONG_BUFFER_MAX = 64 * 1024;

/** One connection that comes back. */
export class Driver {
  life: Life = IDLE;
  #socket: SocketLike | null = null;
  /** What the socket said before it closed without a code. */
  #said = '';
  #timer: unknown = null;
  readonly #queue: LifeEvent[] = [];
  #unwake: (() => void) | null = null;
  /** Counts attempts, so that what belongs to an earlier one is known. */
  #attempt = 0;

  constructor(
    readonly env: Environment,
    readonly config: LifeConfig,
    readonly handlers: Handlers,
  ) {}

  /** Whether a ping is to be answered. */
  get mayPong(): boolean {
    return (this.#socket?.bufferedAmount ?? 0) < PONG_BUFFER_MAX;
  }

  /** Sends a text, if there is an open socket. */
  send(text: string): boolean {
    try {
      if (this.life.socket === 'open') {
        (this.#socket as SocketLike).send(text);
        return true;
      }
    } catch {
      // It is closing or gone, and says so itself.
    }
    return false;
  }

  /** Lets an event happen; one that comes while another is dealt with waits for its turn. */
  dispatch(event: Unstamped): void {
    const queue = this.#queue;
    if (queue.push({ ...event, at: this.env.now(), random: this.env.random() } as LifeEvent) > 1) return;
    for (; queue[0]; queue.shift()) {
      try {
        this.#step(queue[0]);
      } catch (error) {
        // What is of the application's, as delays may be, must not keep the rest from happening.
        report(error);
      }
    }
  }

  #step(event: LifeEvent): void {
    const before = this.life;
    const [life, effects] = transition(before, event, this.config);
    this.life = life;
    for (const [name, value] of effects) {
      if (name === 'open') this.#open();
      else if (name === 'close') this.#close();
      else if (name === 'ping') this.handlers.ping();
      else if (name === 'timer') this.#set(value);
    }
    this.#watch();
    // Told only when all is done, since whoever hears it may want something else.
    for (const [name, failure, delayMs] of effects) {
      if (name !== 'failed') continue;
      this.handlers.failed({ failure, class: classify(failure), text: describe(failure), delayMs });
    }
    if (life.phase !== before.phase || life.reason !== before.reason) this.handlers.changed(life, before);
  }

  #open(): void {
    this.#drop();
    this.#said = '';
    const attempt = this.#attempt;
    const fail = (error: unknown) => {
      if (attempt !== this.#attempt) return;
      const { closed, message = `${error}` } = Object(error) as { closed?: Closed; message?: string };
      this.dispatch({ type: 'closed', code: 1006, reason: message, ...closed });
    };
    const go = (url: string) => {
      if (attempt !== this.#attempt) return;
      this.#listen(this.env.socket(url));
    };
    try {
      const url = this.handlers.url();
      if (typeof url === 'string') go(url);
      else url.then(go).catch(fail);
    } catch (error) {
      fail(error);
    }
  }

  #listen(socket: SocketLike): void {
    this.#socket = socket;
    socket.onopen = () => {
      this.dispatch({ type: 'opened' });
      this.handlers.opened?.();
    };
    socket.onmessage = (event: { data: unknown }) => {
      this.dispatch({ type: 'heard' });
      // Whoever hears that it is open again may end it.
      if (socket === this.#socket) this.handlers.message(event.data);
    };
    socket.onerror = (event: { message?: unknown }) => {
      this.#said = `${event.message ?? ''}`;
    };
    socket.onclose = (event: { code: number; reason: string }) => {
      // Deno says 0 where there was no close frame.
      const code = event.code || 1006;
      const reason = event.reason || (code === 1006 ? this.#said : '');
      this.#drop();
      this.#ended('closed', { code, reason });
    };
  }

  /** Gives the connection, or the attempt at one, up. */
  abandon(closed: Closed): void {
    this.#ended('abandon', closed);
  }

  #ended(type: 'closed' | 'abandon', closed: Closed): void {
    this.dispatch({ type, ...closed, ...this.handlers.explain?.(closed.code) });
  }

  #drop(): SocketLike | null {
    const socket = this.#socket;
    this.#socket = null;
    this.#attempt += 1;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      // Node's `ws` throws where nobody listens for errors.
      socket.onerror = () => {};
    }
    return socket;
  }

  #close(): void {
    try {
      this.#drop()?.close(1000);
    } catch {
      // It is gone all the same.
    }
  }

  #set(ms: number | null): void {
    this.env.clearTimer(this.#timer);
    if (ms !== null) this.#timer = this.env.setTimer(() => this.dispatch({ type: 'timer' }), ms);
  }

  /** Listens for signs of life of the network and the page as long as they matter. */
  #watch(): void {
    if (this.life.phase === 'idle') {
      this.#unwake?.();
      this.#unwake = null;
    } else {
      this.#unwake ??= this.env.onWake((by) => this.dispatch({ type: 'wake', by }));
    }
  }
}
