// Requests that wait for their answers, and among them the outbox: publishes that are sent again on the
// next connection until one is acknowledged.
//
// It must never settle one of them twice, nor hold more than the named maxima.

import { RequestError } from './types.js';

/** How many requests other than publishes wait at once. */
const REQUESTS_MAX = 1024;

/** Whatever the server says. */
export type Frame = { type: string; id?: number | null; [field: string]: unknown };

/** Stops a timer. */
export type Cancel = () => void;

/** An unanswered request. */
export interface Pending {
  readonly id: number;
  /** The type of the frame that answers it; null takes any. */
  readonly answer: string | null;
  resolve(frame: Frame): void;
  reject(error: RequestError): void;
  /** Stops the timer of its deadline. */
  readonly cancel: Cancel;
  /** Of a publish. */
  readonly publish?: Publish;
}

/** A publish in the outbox. */
export interface Publish {
  readonly msgId: string;
  readonly echo: boolean;
  /** The command, always under the same id and message id. */
  text: string;
  /** How often it was sent. */
  sent: number;
  /** Stops the timer that keeps it from being sent again. */
  held: Cancel;
}

/** How many publishes wait at most, and how many characters they have together. */
export interface OutboxLimits {
  outboxMax: number;
  outboxCharactersMax: number;
}

/** All unanswered requests of one client, in the order in which they were made. */
export class Requests {
  readonly pending = new Map<unknown, Pending>();
  /** Those without echo that time ran out for on this connection: their places are still to be known. */
  readonly late = new Set<unknown>();
  /** How many publishes wait, and how many characters they have. */
  publishes = 0;
  characters = 0;

  constructor(readonly limits: OutboxLimits) {}

  /** Throws where there is no room for another one. */
  check(publish?: Publish): void {
    const { outboxMax, outboxCharactersMax } = this.limits;
    const isFull = publish
      ? this.publishes >= outboxMax || this.characters + publish.text.length > outboxCharactersMax
      : this.pending.size - this.publishes >= REQUESTS_MAX;
    if (isFull) throw new RequestError(publish ? 'outbox_full' : 'too_many', null, publish?.msgId);
  }

  insert(pending: Pending): void {
    this.pending.set(pending.id, pending);
    this.#count(pending, 1);
  }

  /** Takes one out; it is to be settled. */
  take(pending: Pending): Pending {
    if (this.pending.delete(pending.id)) this.#count(pending, -1);
    pending.cancel();
    pending.publish?.held();
    return pending;
  }

  #count({ publish }: Pending, sign: number): void {
    if (!publish) return;
    this.characters += sign * publish.text.length;
    this.publishes += sign;
  }

  /** Rejects everything that makes no sense on another connection; with `closed`, the outbox too. */
  rejectAll(code: 'disconnected' | 'closed'): void {
    for (const pending of this.pending.values()) {
      if (!pending.publish || code === 'closed') this.fail(pending, code);
    }
    this.late.clear();
  }

  /** Rejects one. A publish that may have happened says so. */
  fail(pending: Pending, code: 'disconnected' | 'closed' | 'timed_out'): void {
    const { publish } = this.take(pending);
    if (publish && !publish.echo && this.late.size < REQUESTS_MAX) this.late.add(pending.id);
    const why = publish ? (publish.sent > 0 ? 'unanswered' : 'not_sent') : code;
    pending.reject(new RequestError(why, null, publish?.msgId));
  }
}
