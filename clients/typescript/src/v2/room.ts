// One room, as the application holds it: joining, leaving, publishing, who is there, what was said.
//
// It must never decide about the connection: that is the session's. What is marked internal is the
// session's, too, and nobody else's.

import { Events, type Unsubscribe } from '../emitter.js';
import type { HistoryFrame, Member, Position, PresenceFrame } from '../protocol.js';
import type { Cancel } from './requests.js';
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

/** A listed member, or what became of one. */
type Change = Pick<Member, 'user_id' | 'data'> & { event?: string };

/** A room. The same name gives the same object. */
export class Room<T = unknown> {
  /** Where the client is with this room. Not to be set. */
  state: RoomState = 'out';
  /** @internal */ track = new Track();
  /** @internal */ options: JoinOptions = {};
  /** @internal The commands under way that joined and left it last. */
  joinId: number | null = null;
  /** @internal */ leaveId: number | null = null;
  /** @internal Stops the timer that waits for an answer, or to join again. */
  cancel: Cancel = () => {};
  /** @internal Where a hole was found that coming back was to fill. */
  holeAt: number | undefined;
  /**
   * @internal Whether the server has it in, or will have, whatever was said since: `connect` named it on this connection,
   * and `hello` has not answered yet; or it is to be left again, as that was refused for the moment.
   */
  isNamed = false;
  /** @internal */ readonly events = new Events<RoomEvents<unknown>>();
  /** @internal The list of members that is on its way, or was refused for now or for good. */
  asked: Promise<unknown> | null = null;
  /** What `join` answered, and how to settle it. */
  #joined: Promise<Joined> | null = null;
  #settle: { resolve(joined: Joined): void; reject(error: unknown): void } | null = null;
  #presence: Presence | null = null;
  /** The number of the last event of presence that is known of. */
  #seq = 0;

  constructor(
    readonly name: string,
    /** @internal */ readonly session: Session,
  ) {}

  /** Calls back with what happens here. */
  on<K extends keyof RoomEvents>(name: K, listener: (value: RoomEvents<T>[K]) => unknown): Unsubscribe {
    return this.events.on(name, listener as (value: RoomEvents<unknown>[K]) => unknown);
  }

  /** Up to where the client has everything; null while it does not know. */
  get position(): Position | null {
    return this.track.at;
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
    const { session, state } = this;
    if (state === 'out' || state === 'leaving') {
      this.options = options;
      this.track = new Track(options.since, !!options.filter);
      const joined = new Promise<Joined>((resolve, reject) => {
        this.#settle = { resolve, reject };
      });
      this.#joined = joined;
      joined.catch(() => {});
      session.join(this);
      return joined;
    }
    if (options.presence && !this.options.presence) {
      // More than was asked for: who comes and goes, from where it stands.
      this.options = { ...this.options, presence: true };
      session.rejoin(this);
    }
    return this.#joined as Promise<Joined>;
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
  updatePresence(data: unknown): Promise<void> {
    return this.session.ask('presence_updated', { type: 'presence_update', room: this.name, data: data ?? null });
  }

  /** @internal With what is under way, which whoever hears of it may end. */
  become(state: RoomState, cancel: Cancel = () => {}, joinId: number | null = null): void {
    this.cancel();
    this.cancel = cancel;
    this.joinId = joinId;
    if (state !== 'leaving' && state !== 'joining') this.leaveId = null;
    if (this.state === state) return;
    this.state = state;
    this.#seq = 0;
    this.asked = this.#presence = null;
    this.events.emit('state', state);
  }

  /** @internal It is in. */
  succeeded(joined: Joined): void {
    this.#settle?.resolve(joined);
    this.events.emit('joined', joined);
  }

  /** @internal It will not be in. */
  failed(error: RequestError): void {
    this.#settle?.reject(error);
  }

  /** @internal The whole list, or only how many. One that is too old leaves nothing known. */
  listed(seq: number, total: number, members: unknown): void {
    if (!members || seq >= this.#seq) {
      this.#seq = Math.max(seq, this.#seq);
      this.#tell(new Map(), total, members as Change[] | undefined);
      // Where members are counted a list comes by itself.
    } else if (this.#presence?.isNamed) this.#presence = null;
  }

  /** @internal Who came, went or changed since a number. Answers whether it is news. */
  changed(seq: number, total: number, from: number, changes: unknown): boolean {
    if (seq <= this.#seq) return false;
    const known = this.#presence;
    const isNext = from <= this.#seq + 1;
    this.#seq = seq;
    if (known?.isNamed && isNext) this.#tell(new Map(known.members), total, changes as Change[]);
    // While a list is on its way it is enough to know how far it has to reach.
    else this.#presence = null;
    return true;
  }

  #tell(members: Map<string, Pick<Member, 'user_id' | 'data'>>, total: number, changes?: Change[]): void {
    for (const { event, user_id, data } of changes ?? []) {
      if (event === 'leave') members.delete(user_id);
      else if (members.has(user_id) || members.size < MEMBERS_MAX) members.set(user_id, { user_id, data });
    }
    this.#presence = { members, total, isNamed: !!changes };
    this.events.emit('presence', this.#presence);
  }
}
