// `@roomkeeper/client/patterns`: all rooms of a pattern, followed without their logs.
//
// It must never pretend to recover: what comes while there is no connection, or is lost under load, is
// told as `ended`, and is to be loaded from elsewhere.

import { Events, type Unsubscribe } from './emitter.js';
import type { RoomkeeperClient } from './v2/client.js';
import type { Left, Message, RequestError } from './v2/types.js';

/** When to follow again after the server lost something, in ms. */
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
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly client: RoomkeeperClient,
    readonly pattern: string,
  ) {
    this.#off = [
      client.on('hello', () => this.#follow()),
      client.on('lost', () => this.#ended(null, null)),
      client.on('frame', (frame) => {
        if (frame.pattern !== pattern) return;
        if (frame.type === 'message') this.#events.emit('message', frame as unknown as Message<T>);
        if (frame.type === 'unsubscribed') this.#ended(frame.code, frame.reason);
      }),
    ];
    this.#follow();
  }

  on<K extends keyof PatternEvents>(name: K, listener: (value: PatternEvents<T>[K]) => unknown): Unsubscribe {
    return this.#events.on(name, listener);
  }

  /** Follows it no longer. */
  stop(): void {
    clearTimeout(this.#timer);
    for (const off of this.#off) off();
    this.client.request({ type: 'unsubscribe', pattern: this.pattern }).catch(() => {});
  }

  #follow(): void {
    clearTimeout(this.#timer);
    this.client.request({ type: 'subscribe', pattern: this.pattern }).then(
      () => this.#events.emit('following', undefined),
      ({ refusal }: RequestError) => {
        if (refusal) this.#ended(refusal.code, refusal.error);
      },
    );
  }

  #ended(code: unknown, reason: unknown): void {
    const left = { code: typeof code === 'number' ? code : null, reason: typeof reason === 'string' ? reason : null };
    this.#events.emit('ended', left);
    clearTimeout(this.#timer);
    if (TEMPORARY.includes(left.code ?? 0)) this.#timer = setTimeout(() => this.#follow(), AGAIN_MS);
  }
}
