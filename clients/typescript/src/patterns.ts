// `@roomkeeper/client/patterns`: all rooms of a pattern, followed without their logs.
//
// It must never pretend to recover: what comes while there is no connection, or is lost under load, is
// told as `ended`, and is to be loaded from elsewhere.

import { Events, type Unsubscribe } from './emitter.js';
import type { RoomkeeperClient } from './v2/client.js';
import { retryAfter } from './v2/session.js';
import type { Left, Message, RequestError } from './v2/types.js';

/** When to follow again after the server lost something, or refused for the moment without a time, in ms. */
const AGAIN_MS = 1000;
/** After these errors it may be followed later. */
const TEMPORARY = [108, 114, 116, 117];

/** What a pattern tells. */
export interface PatternEvents<T = unknown> {
  message: Message<T>;
  /** From now on messages come. */
  following: undefined;
  /** None come any more. Without a code, or with one that passes, it is followed again by itself. */
  ended: Left;
}

/** A pattern such as `game:zone/*` that is followed on every connection, until {@link stop}. */
export class Pattern<T = unknown> {
  readonly #events = new Events<PatternEvents<T>>();
  readonly #off: Unsubscribe[];
  #timer: unknown;
  /** `over`: stopped, or refused for good. */
  #state: 'away' | 'asked' | 'following' | 'over' = 'away';

  constructor(
    readonly client: RoomkeeperClient,
    readonly pattern: string,
  ) {
    this.#off = [
      client.on('hello', () => void this.#follow()),
      // Also where the application has ended the connection, which is no loss.
      client.on('state', ({ phase }) => {
        if (phase !== 'open' && phase !== 'degraded') this.#lost();
      }),
      client.on('frame', (frame) => {
        if (frame.pattern !== pattern || this.#state !== 'following') return;
        if (frame.type === 'message') this.#events.emit('message', frame as unknown as Message<T>);
        if (frame.type === 'unsubscribed') this.#ended(frame.code, frame.reason, frame);
      }),
    ];
    void this.#follow();
  }

  on<K extends keyof PatternEvents>(name: K, listener: (value: PatternEvents<T>[K]) => unknown): Unsubscribe {
    return this.#events.on(name, listener);
  }

  /** Follows it no longer. */
  stop(): void {
    const isThere = this.#state === 'asked' || this.#state === 'following';
    this.#over();
    if (isThere) this.client.request({ type: 'unsubscribe', pattern: this.pattern }).catch(() => {});
  }

  #over(): void {
    this.#state = 'over';
    this.client.env.clearTimer(this.#timer);
    for (const off of this.#off) off();
  }

  async #follow(): Promise<void> {
    const { client, pattern } = this;
    client.env.clearTimer(this.#timer);
    this.#state = 'asked';
    try {
      await client.request({ type: 'subscribe', pattern });
      if (!this.#is('asked')) return;
      this.#state = 'following';
      this.#events.emit('following', undefined);
    } catch (error) {
      if (!this.#is('asked')) return;
      this.#state = 'away';
      const { code, refusal } = error as RequestError;
      if (refusal) return this.#ended(refusal.code, refusal.error, refusal);
      // Nobody knows whether it is followed: ended first, asking again is not asking twice.
      if (code === 'timed_out') client.request({ type: 'unsubscribe', pattern }).catch(() => {});
      if (code === 'timed_out' || code === 'too_many') this.#again(AGAIN_MS);
    }
  }

  #is(state: string): boolean {
    return this.#state === state;
  }

  #lost(): void {
    this.client.env.clearTimer(this.#timer);
    const was = this.#state;
    this.#state = 'away';
    if (was === 'following') this.#events.emit('ended', { code: null, reason: null });
  }

  #again(ms: number): void {
    this.#timer = this.client.env.setTimer(() => void this.#follow(), ms);
  }

  #ended(code: unknown, reason: unknown, said: object): void {
    const left = { code: typeof code === 'number' ? code : null, reason: typeof reason === 'string' ? reason : null };
    if (TEMPORARY.includes(left.code ?? 0)) {
      this.#state = 'away';
      this.#again(retryAfter(said, AGAIN_MS));
    } else this.#over();
    this.#events.emit('ended', left);
  }
}
