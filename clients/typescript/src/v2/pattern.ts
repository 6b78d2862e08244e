// All rooms of a pattern, followed without their logs.
//
// It must never pretend to recover: what comes while there is no connection, or is lost under load, is
// told as `ended` and `following`, and is to be loaded from elsewhere.

import { Events, type Unsubscribe } from '../emitter.js';
import type { Frame } from './requests.js';
import type { Session } from './session.js';
import { type Left, type Message, RequestError } from './types.js';

/** When to follow again after the server lost something, in ms. */
const AGAIN_MS = 1000;

/** What a pattern tells. */
export interface PatternEvents<T = unknown> {
  message: Message<T>;
  /** From now on messages come. */
  following: undefined;
  /** None come any more; with code 114, or none, it is followed again by itself. */
  ended: Left;
}

/** A pattern that is followed on every connection until {@link unfollow}. */
export class Pattern<T = unknown> {
  /** @internal */ readonly events = new Events<PatternEvents<unknown>>();
  #isWanted = true;

  constructor(
    readonly pattern: string,
    readonly session: Session,
  ) {}

  on<K extends keyof PatternEvents>(name: K, listener: (value: PatternEvents<T>[K]) => unknown): Unsubscribe {
    return this.events.on(name, listener as (value: PatternEvents<unknown>[K]) => unknown);
  }

  /** Follows it no longer. */
  unfollow(): void {
    this.#isWanted = false;
    this.session.patterns.delete(this.pattern);
    this.session.ask('unsubscribed', { type: 'unsubscribe', pattern: this.pattern }).catch(() => {});
  }

  /** @internal Asks to follow it on this connection. */
  follow(): void {
    if (!this.#isWanted || this.session.stage !== 'online') return;
    this.session.ask('subscribed', { type: 'subscribe', pattern: this.pattern }).then(
      () => this.events.emit('following', undefined),
      (error: RequestError) => {
        if (error.code !== 'refused') return;
        this.ended({ type: 'error', code: error.refusal?.code, reason: error.refusal?.error });
      },
    );
  }

  /** @internal It was ended, or refused. */
  ended(frame: Frame): void {
    const code = typeof frame.code === 'number' ? frame.code : null;
    this.events.emit('ended', { code, reason: typeof frame.reason === 'string' ? frame.reason : null });
    if (code === 114 || code === 108 || code === 117) this.session.host.later(AGAIN_MS, () => this.follow());
    else this.session.patterns.delete(this.pattern);
  }
}
