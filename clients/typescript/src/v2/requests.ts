// Requests that wait for their answers, and among them the outbox: publishes that are sent again on the
// next connection until one is acknowledged.
//
// Each is settled exactly once, and there are never more than the named maxima.

import { RequestError } from './types.js';

/** How many requests other than publishes wait at once. */
const REQUESTS_MAX = 1024;

/** Whatever the server says. */
export type Frame = { type: string; id?: number | null; [field: string]: unknown };

/** An unanswered request. */
export interface Pending {
  readonly id: number;
  /** The type of the frame that answers it; null takes any. */
  readonly answer: string | null;
  readonly deadline: number;
  resolve(frame: Frame): void;
  reject(error: RequestError): void;
  /** Of a publish. */
  readonly publish?: Publish;
}

/** A publish in the outbox. */
export interface Publish {
  readonly msgId: string;
  readonly room: string;
  readonly echo: boolean;
  /** The command, always under the same id and message id. */
  readonly text: string;
  /** How often it was sent. */
  sent: number;
  /** Not to be sent again before; null when nothing keeps it. */
  heldUntil: number | null;
}

/** All unanswered requests of one client, in the order in which they were made. */
export class Requests {
  #lastId = 0;
  readonly #pending = new Map<number, Pending>();
  #publishes = 0;
  #characters = 0;

  constructor(
    readonly outboxMax: number,
    readonly outboxCharactersMax: number,
  ) {}

  /** An id that was never used. */
  nextId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  /** The last id that was given out. */
  get lastId(): number {
    return this.#lastId;
  }

  /** How many publishes wait. */
  get publishes(): number {
    return this.#publishes;
  }

  /** Takes a request in, or throws why not. */
  insert(pending: Pending): void {
    const { publish } = pending;
    if (publish) {
      const characters = this.#characters + publish.text.length;
      if (this.#publishes >= this.outboxMax || characters > this.outboxCharactersMax) {
        throw new RequestError('outbox_full', null, publish.msgId);
      }
      this.#publishes += 1;
      this.#characters = characters;
    } else if (this.#pending.size - this.#publishes >= REQUESTS_MAX) {
      throw new RequestError('too_many');
    }
    this.#pending.set(pending.id, pending);
  }

  get(id: unknown): Pending | undefined {
    return this.#pending.get(id as number);
  }

  take(id: unknown): Pending | undefined {
    const pending = this.get(id);
    if (!pending) return undefined;
    this.#pending.delete(pending.id);
    if (pending.publish) {
      this.#publishes -= 1;
      this.#characters -= pending.publish.text.length;
    }
    return pending;
  }

  /** The outbox, oldest first. */
  outbox(): Publish[] {
    return [...this.#pending.values()].flatMap(({ publish }) => publish ?? []);
  }

  /** Rejects everything that makes no sense on another connection; with `all`, the outbox too. */
  reject(code: 'disconnected' | 'closed', all: boolean): void {
    for (const pending of [...this.#pending.values()]) {
      if (!pending.publish || all) this.fail(pending, code);
    }
  }

  /** Rejects one. A publish that may have happened says so. */
  fail(pending: Pending, code: 'disconnected' | 'closed' | 'timed_out'): void {
    this.take(pending.id);
    const { publish } = pending;
    if (!publish) return pending.reject(new RequestError(code));
    pending.reject(new RequestError(publish.sent > 0 ? 'unanswered' : 'not_sent', null, publish.msgId));
  }

  /** Those whose time is up. */
  expired(now: number): Pending[] {
    return [...this.#pending.values()].filter((pending) => pending.deadline <= now);
  }

  /** When to look again. */
  due(): number {
    let due = Number.POSITIVE_INFINITY;
    for (const { deadline, publish } of this.#pending.values()) {
      due = Math.min(due, deadline, publish?.heldUntil ?? due);
    }
    return due;
  }
}
