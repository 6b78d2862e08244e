// One room, as the application holds it: joining, leaving, publishing, who is there, what was said.
//
// It must never decide about the connection: that is the session's. What is marked internal is the
// session's, too, and nobody else's.

import { Events, type Unsubscribe } from '../emitter.js';
import type { HistoryFrame, Position, PresenceFrame } from '../protocol.js';
import type { Session } from './session.js';
import { Track } from './track.js';
import {
  type Joined,
  type JoinOptions,
  type Presence,
  type Published,
  type PublishOptions,
  RequestError,
  type RoomEvents,
  type RoomState,
} from './types.js';

/** How many members are kept by name. */
const MEMBERS_MAX = 10_000;

/** A promise and how to settle it; nobody has to listen. */
interface Deferred<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

function deferred<T>(): Deferred<T> {
  const made = {} as Deferred<T>;
  made.promise = new Promise<T>((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}

/** A room. The same name gives the same object. */
export class Room<T = unknown> {
  /** @internal */ state: RoomState = 'out';
  /** @internal */ track = new Track();
  /** @internal */ options: JoinOptions = {};
  /** @internal The commands under way that joined and left it last. */
  joinId: number | null = null;
  /** @internal */ leaveId: number | null = null;
  /** @internal Until when the answer to the first has to come. */
  joinBy = 0;
  /** @internal When to join again. */
  retryAt: number | null = null;
  /** @internal Where a hole was found that coming back was to fill. */
  holeAt: number | null = null;
  /** @internal */ readonly events = new Events<RoomEvents<unknown>>();
  #joined: Deferred<Joined> | null = null;
  #members = new Map<string, { user_id: string; data: unknown }>();
  #presence: Presence | null = null;
  #total = 0;
  /** The number of the last event of presence; null while a list is on its way, or nothing is followed. */
  #seq: number | null = null;
  /** The highest number that came while a list was on its way. */
  #seen = 0;

  constructor(
    readonly name: string,
    readonly session: Session,
  ) {}

  /** Calls back with what happens here. */
  on<K extends keyof RoomEvents>(name: K, listener: (value: RoomEvents<T>[K]) => unknown): Unsubscribe {
    return this.events.on(name, listener as (value: RoomEvents<unknown>[K]) => unknown);
  }

  /** Where the client is with this room. */
  get status(): RoomState {
    return this.state;
  }

  /** Up to where the client has everything; null while it does not know. */
  get position(): Position | null {
    return this.track.position;
  }

  /** Who is here; null while it is not known or not followed. */
  get presence(): Presence | null {
    return this.#presence;
  }

  /**
   * Wants to be in, on this connection and every later one, until {@link leave}. Resolves once it is in;
   * rejects when the server refuses for good, or when it was left before.
   */
  join(options: JoinOptions = {}): Promise<Joined> {
    if (this.state !== 'out' && this.state !== 'leaving') {
      // More than is asked for already: who comes and goes, from where it stands.
      if (options.presence && !this.options.presence) {
        this.options = { ...this.options, presence: true };
        this.session.rejoin(this);
      }
    } else {
      this.options = options;
      this.track = new Track(options.since, !!options.filter);
      this.#joined = deferred();
      this.session.join(this);
    }
    this.#joined ??= deferred();
    return this.#joined.promise;
  }

  /** Is no longer in. */
  leave(): Promise<void> {
    this.failed(new RequestError('left'));
    return this.session.leave(this);
  }

  /**
   * Publishes, now or on the next connection. Resolves with the acknowledgement; rejects when it was
   * refused, and when it is not known in time (`unanswered`) or was never sent (`not_sent`).
   */
  publish(data: T, options: PublishOptions = {}): Promise<Published> {
    return this.session.publish(this.name, data, options);
  }

  /** Earlier messages, without joining. */
  history(options: { since?: Position | null; limit?: number } = {}): Promise<HistoryFrame> {
    return this.session.ask('history', { type: 'history', room: this.name, ...options });
  }

  /** Asks who is here. */
  members(): Promise<PresenceFrame> {
    return this.session.ask('presence', { type: 'presence', room: this.name });
  }

  /** Sets what others see of this user here. */
  async updatePresence(data: unknown): Promise<void> {
    await this.session.ask('presence_updated', { type: 'presence_update', room: this.name, data: data ?? null });
  }

  /** @internal */
  become(state: RoomState): void {
    if (this.state === state) return;
    this.state = state;
    if (state !== 'joined') {
      this.#seq = null;
      this.#presence = null;
    }
    this.events.emit('state', state);
  }

  /** @internal It is in. */
  succeeded(joined: Joined): void {
    this.#joined ??= deferred();
    this.#joined.resolve(joined);
    this.events.emit('joined', joined);
  }

  /** @internal It will not be in. */
  failed(error: RequestError): void {
    this.#joined?.reject(error);
    this.#joined = null;
  }

  /** @internal The whole list. Answers whether another one has to be asked for. */
  listed(seq: number, total: number, members: readonly { user_id: string; data: unknown }[]): boolean {
    if (seq < this.#seen) return true;
    this.#seq = seq;
    this.#seen = 0;
    this.#total = total;
    this.#members = new Map();
    for (const { user_id, data } of members.slice(0, MEMBERS_MAX)) this.#members.set(user_id, { user_id, data });
    this.#tell();
    return false;
  }

  /** @internal Somebody came, went or changed. Answers whether the list has to be asked for. */
  happened(seq: number, event: string, user_id: string, data: unknown): boolean {
    if (this.#seq === null) {
      this.#seen = Math.max(this.#seen, seq);
      return false;
    }
    if (seq <= this.#seq) return false;
    if (seq !== this.#seq + 1) {
      this.#seq = null;
      this.#seen = seq;
      return true;
    }
    this.#seq = seq;
    if (event === 'leave') {
      this.#members.delete(user_id);
      this.#total -= 1;
    } else {
      if (event === 'join') this.#total += 1;
      if (this.#members.has(user_id) || this.#members.size < MEMBERS_MAX) this.#members.set(user_id, { user_id, data });
    }
    this.#tell();
    return false;
  }

  #tell(): void {
    this.#presence = { members: new Map(this.#members), total: this.#total };
    this.events.emit('presence', this.#presence);
  }
}
