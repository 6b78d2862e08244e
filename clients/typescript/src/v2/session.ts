// What the client of protocol v2 decides: texts, wishes and the passing of time go in; frames and events
// come out.
//
// It must never read a socket or a clock, and never throw at what a server says: a frame that makes no
// sense is told as a violation and passed over. What it may have taken with it shows as a hole.

import type { Closed } from '../connection/driver.js';
import type { Environment } from '../connection/environment.js';
import { Events } from '../emitter.js';
import type { HelloFrame } from '../protocol.js';
import { heartbeat, list, span } from '../wire.js';
import { HANDLERS, subscribed, text } from './frames.js';
import { type Cancel, type Frame, type OutboxLimits, type Publish, Requests } from './requests.js';
import { Room } from './room.js';
import { type ClientEvents, type Published, type PublishOptions, RequestError } from './types.js';

/** How many rooms one client may know by name, for as long as it lives. Servers let it into far fewer at once. */
const ROOMS_MAX = 65_536;
/** How many rooms `connect` names, and how many characters of them: the rest is asked for one by one. */
const RESUME_MAX = 128;
const RESUME_CHARACTERS_MAX = 32 * 1024;
/** When to try again after a refusal for the moment that names no time, in ms. */
const RETRY_MS = 2000;
/** The soonest that something is tried again, whatever time a refusal names, in ms. */
const RETRY_MIN_MS = 100;

/** When to try again after a refusal for the moment. */
export const retryAfter = (refusal: object | null, otherwise = RETRY_MS): number =>
  Math.max(span((refusal as Frame | null)?.retry_after_ms) ?? otherwise, RETRY_MIN_MS);

/** How long a server that said `disconnect` has to close, in ms. */
const FAREWELL_MS = 5000;
/** The largest message that is taken from a server, in characters. */
const TEXT_MAX = 64 * 1024 * 1024;
/** How many frames of one text may make no sense before the connection is given up. */
const MALFORMED_MAX = 16;

/** What a session needs of its driver. */
export interface Host {
  readonly env: Pick<Environment, 'setTimer' | 'clearTimer'>;
  /** Whether a ping is to be answered. */
  readonly mayPong: boolean;
  /** Answers whether it went out. */
  send(text: string): boolean;
  /** Gives the connection up. */
  abandon(closed: Closed): void;
  dispatch(event: { type: 'greeted'; heartbeatMs: number }): void;
}

/** How long answers may take, in ms, and how much may wait. */
export interface SessionLimits extends OutboxLimits {
  requestTimeoutMs: number;
  publishTimeoutMs: number;
}

/** The state of one client. */
export class Session {
  readonly events = new Events<ClientEvents>();
  readonly rooms = new Map<string, Room>();
  readonly requests: Requests;
  /** The last id that was given out; none is used twice. */
  lastId = 0;
  stage: 'offline' | 'greeting' | 'online' | 'closed' = 'offline';
  /** Changes with every loss. Whoever calls out compares it afterwards. */
  connection = 0;
  /** The connection that the outbox was sent on: what is published goes behind it. */
  #flushed = -1;
  /** The rooms that the server put this connection into without being asked. */
  ownRooms = new Set<unknown>();
  token: string | null = null;
  /** What the server gave to come back with. */
  ticket: string | null = null;
  #mayResume = false;
  /** The id of our `connect`, if `hello` has to answer it; and whether it asked for more than to be known. */
  connectId: number | null = null;
  #resumes = false;
  #earlyHello: HelloFrame | null = null;
  #farewell: (Closed & { cancel: Cancel }) | null = null;
  /** How many frames of the text at hand made no sense. */
  #malformed = 0;

  constructor(
    readonly host: Host,
    readonly limits: SessionLimits,
  ) {
    this.requests = new Requests(limits);
  }

  /** The room of this name. */
  room(name: string): Room {
    const room = this.rooms.get(name) ?? new Room(name, this);
    this.rooms.set(name, room);
    return room;
  }

  /** The socket is open. */
  opened(): void {
    this.stage = 'greeting';
    this.#connect(this.#mayResume ? this.#resumable() : []);
  }

  /** Says who the client is and where it was, if there is anything to say. */
  #connect(resume: object[]): void {
    const { token, ticket: session } = this;
    this.#resumes = session !== null || resume.length > 0;
    // Null is the same as leaving it out.
    this.connectId = token !== null || this.#resumes ? this.say({ type: 'connect', token, session, resume }) : null;
  }

  /** The rooms to name in `connect`; they are on the way in from then on, unless who hears of it ends the connection. */
  #resumable(): object[] {
    const resume: object[] = [];
    let characters = 0;
    for (const room of this.rooms.values()) {
      const named = { room: room.name, ...room.position, ...wanted(room) };
      if (room.state !== 'away' || !room.position || resume.length === RESUME_MAX) continue;
      if (this.stage !== 'greeting') break;
      characters += JSON.stringify(named).length;
      if (characters > RESUME_CHARACTERS_MAX) break;
      room.isNamed = true;
      room.become('joining');
      resume.push(named);
    }
    return resume;
  }

  /** The next `connect` asks for nothing but to be known by the token. */
  forgetResume(): void {
    this.ticket = null;
    this.#mayResume = false;
  }

  /** Whether our `connect` asked for more than to be known by the token. */
  get hasResumed(): boolean {
    return this.stage === 'greeting' && this.#resumes;
  }

  /** The server refused our `connect`. */
  connectRefused(isTemporary: boolean, reason: string, after: number | null): void {
    if (isTemporary || !this.hasResumed) {
      return this.host.abandon({ code: isTemporary ? 1013 : 3500, reason, after });
    }
    // Without ticket and rooms, then, and room by room.
    this.forgetResume();
    for (const room of this.rooms.values()) {
      if (room.state === 'joining') room.become('away');
      room.isNamed = false;
    }
    this.#connect([]);
    if (this.connectId === null && this.#earlyHello) this.#online(this.#earlyHello);
  }

  /** `hello` came. */
  greeted(hello: HelloFrame): void {
    if (this.stage !== 'greeting') return;
    this.ticket = typeof hello.session === 'string' ? hello.session : null;
    this.#mayResume = list(hello.features).includes('resume');
    // The greeting before our `connect` is not its answer, which is still on its way.
    if (this.connectId !== null && this.connectId !== hello.id) this.#earlyHello = hello;
    else this.#online(hello);
  }

  /** Everything that is wanted is asked for, in the order in which it was wanted. */
  #online(hello: HelloFrame): void {
    const { connection } = this;
    // Whoever hears of a room or of the connection may end it, and begin another.
    const isSame = () => this.connection === connection;
    this.stage = 'online';
    this.connectId = this.#earlyHello = null;
    this.ownRooms = new Set(list(hello.rooms));
    for (const room of this.rooms.values()) {
      // Named in `connect`, and left since.
      if (room.isNamed && room.state !== 'joining') void this.sendLeave(room);
      room.isNamed = false;
    }
    for (const room of this.rooms.values()) if (room.state === 'away' && isSame()) this.sendJoin(room);
    if (!isSame()) return;
    // The outbox, oldest first.
    for (const { publish } of this.requests.pending.values()) if (publish) this.#sendPublish(publish);
    this.#flushed = connection;
    this.host.dispatch({ type: 'greeted', heartbeatMs: heartbeat(hello.heartbeat_interval_ms) });
    if (isSame()) this.events.emit('hello', hello);
    for (const outcome of list(hello.resumed) as Frame[]) {
      if (isSame()) this.#guarded(() => subscribed(this, outcome, this.rooms.get(outcome.room as string)));
    }
    for (const room of this.rooms.values()) {
      // Named, and left out of the answer.
      if (isSame() && room.state === 'joining' && room.joinId === null) this.sendJoin(room);
    }
  }

  /** One text of the server's: a frame on each line. */
  text(data: unknown): void {
    const { connection } = this;
    this.#malformed = 0;
    if (typeof data !== 'string' || data.length > TEXT_MAX) return this.#nonsense('binary or too large', MALFORMED_MAX);
    // One by one: a text may be nothing but ends of lines.
    for (const [line] of data.matchAll(/[^\n]+/g)) {
      if (this.connection !== connection) return;
      if (line.trim()) this.#guarded(() => this.#frame(JSON.parse(line)));
    }
  }

  #frame(frame: Frame): void {
    // What is said of patterns is nothing that this client has a place for.
    const type = text(frame.type);
    const handler = frame.pattern ? null : HANDLERS[type];
    if (handler) handler(this, frame, this.rooms.get(frame.room as string));
    else if (!this.answer(frame)) this.events.emit('frame', frame);
  }

  /** What a stranger says may be anything. */
  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#nonsense(`${error}`);
    }
  }

  /** Too much of it, and the server is none. */
  #nonsense(words: string, weight = 1): void {
    this.violation(words);
    this.#malformed += weight;
    if (this.#malformed >= MALFORMED_MAX) this.host.abandon({ code: 1006, reason: 'nonsense' });
  }

  violation(words: string): void {
    this.events.emit('violation', words);
  }

  /** The connection is gone. */
  lost(): void {
    this.connection += 1;
    if (this.stage !== 'closed') this.stage = 'offline';
    this.#farewell?.cancel();
    this.#farewell = this.connectId = this.#earlyHello = null;
    this.ownRooms.clear();
    this.requests.rejectAll('disconnected');
    for (const room of this.rooms.values()) {
      room.isNamed = false;
      if (room.state === 'leaving') room.become('out');
      else if (room.state !== 'out') room.become('away');
    }
  }

  /** The client ends: nobody is left without an answer. */
  close(): void {
    this.stage = 'closed';
    this.lost();
    this.requests.rejectAll('closed');
    for (const room of this.rooms.values()) {
      room.failed(new RequestError('closed'));
      room.become('out');
    }
  }

  /** What the server said about the end, where the socket says less. */
  explain(code: number): Partial<Closed> | null {
    const said = this.#farewell;
    return said && (code === 1005 || code === 1006 ? said : { after: said.after });
  }

  /** The server says that it closes. The first time counts: another does not put the end off. */
  farewell(closed: Closed): void {
    this.#farewell ??= { ...closed, cancel: this.timer(FAREWELL_MS, () => this.host.abandon(closed)) };
  }

  /** Calls back once; answers how to stop that. */
  timer(ms: number, action: () => void): Cancel {
    const { env } = this.host;
    const timer = env.setTimer(action, ms);
    return () => env.clearTimer(timer);
  }

  /** Says a command under an id, which it answers. */
  say(command: object, id: number | null = ++this.lastId): number {
    this.host.send(JSON.stringify({ ...command, id }));
    return id as number;
  }

  /** Asks the server something that only makes sense on this connection. */
  ask<F>(answer: string | null, command: object): Promise<F> {
    return this.#wait(answer, () => {
      if (this.stage !== 'online') throw new RequestError('disconnected');
      this.requests.check();
      return this.say(command);
    });
  }

  /** Puts a publish into the outbox, and sends it if there is a connection. */
  publish(room: string, data: unknown, options: PublishOptions): Promise<Published> {
    const { msgId = freshName(), echo = true, ttlMs, ...rest } = options;
    const publish: Publish = { msgId, echo, text: '', sent: 0, held: () => {} };
    return this.#wait(
      'ack',
      () => {
        const id = ++this.lastId;
        const named = { type: 'publish', id, room, msg_id: msgId, echo, ttl_ms: ttlMs, data: data ?? null };
        publish.text = JSON.stringify({ ...named, ...rest });
        this.requests.check(publish);
        return id;
      },
      publish,
    );
  }

  /** Waits for the answer to what `start` says, and answers the id of. Nobody has to look at the promise. */
  #wait<F>(answer: string | null, start: () => number, publish?: Publish): Promise<F> {
    const ms = publish ? this.limits.publishTimeoutMs : this.limits.requestTimeoutMs;
    const promise = new Promise<Frame>((resolve, reject) => {
      if (this.stage === 'closed') throw new RequestError('closed');
      const id = start();
      const cancel = this.timer(ms, () => this.requests.fail(pending, 'timed_out'));
      const pending = { id, answer, resolve, reject, cancel, publish };
      this.requests.insert(pending);
      if (publish && this.#flushed === this.connection) this.#sendPublish(publish);
    });
    promise.catch(() => {});
    return promise as Promise<unknown> as Promise<F>;
  }

  #sendPublish(publish: Publish): void {
    publish.held();
    if (this.host.send(publish.text)) publish.sent += 1;
  }

  /** Keeps a publish back for a while. */
  hold(publish: Publish, ms: number): void {
    publish.held();
    publish.held = this.timer(ms, () => this.#flushed === this.connection && this.#sendPublish(publish));
  }

  /** Hands an answer to whoever asked; false when nobody did. */
  answer(frame: Frame): boolean {
    const pending = this.requests.pending.get(frame.id);
    if (!pending) return false;
    if ((pending.answer ?? frame.type) === frame.type) {
      this.requests.take(pending).resolve({ ...frame, msg_id: pending.publish?.msgId });
    } else {
      this.violation('wrong answer');
      this.requests.fail(pending, 'disconnected');
    }
    return true;
  }

  join(room: Room): void {
    const isFull = this.rooms.size > ROOMS_MAX;
    if (isFull || this.stage === 'closed') return room.failed(new RequestError(isFull ? 'too_many' : 'closed'));
    if (this.stage === 'online') this.sendJoin(room);
    else room.become('away');
  }

  sendJoin(room: Room): void {
    if (room.isNamed) this.#leaveAgain(room);
    const id = this.say({ type: 'subscribe', room: room.name, since: room.position, ...wanted(room) });
    // Asking again on this connection could only be refused as asking twice.
    const cancel = this.timer(this.limits.requestTimeoutMs, () =>
      this.host.abandon({ code: 1006, reason: 'no answer' }),
    );
    room.become('joining', cancel, id);
  }

  /** More is wanted of a room than was asked for: it is left and joined again. */
  rejoin(room: Room): void {
    // If `connect` has named it, `hello` comes first.
    if (this.stage !== 'online') room.become('away');
    else if (room.state !== 'away') {
      void this.sendLeave(room);
      this.sendJoin(room);
    }
  }

  async leave(room: Room): Promise<void> {
    if (this.stage === 'online' && isIn(room)) {
      const over = this.sendLeave(room);
      room.become('leaving');
      await over;
    } else if (room.state !== 'leaving') room.become('out');
  }

  async sendLeave(room: Room): Promise<void> {
    // However much else is open: a room that is not left could not be joined again.
    const asked = this.#wait('unsubscribed', () => this.say({ type: 'unsubscribe', room: room.name }));
    const id = this.lastId;
    room.leaveId = id;
    await asked.catch(() => {});
    if (room.leaveId !== id) return;
    // Refused to its end: the server has the client in, and takes no join from who is.
    if (room.isNamed) this.host.abandon({ code: 1006, reason: 'not left' });
    // No answer came in time, or none can come: it is forgotten all the same.
    this.left(room);
  }

  /** Leaving failed for the moment: the client is still in. */
  leaveLater(room: Room, ms: number): void {
    // No server takes a join from who is.
    if (room.state !== 'leaving') return this.host.abandon({ code: 1006, reason: 'not left' });
    room.isNamed = true;
    room.cancel = this.timer(ms, () => this.#leaveAgain(room));
  }

  #leaveAgain(room: Room): void {
    room.isNamed = false;
    this.say({ type: 'unsubscribe', room: room.name }, room.leaveId);
  }

  /** The last leave of a room is over. */
  left(room: Room): void {
    room.leaveId = null;
    room.isNamed = false;
    if (room.state === 'leaving') room.become('out');
  }
}

/** Whether the room is in, or on the way. */
export const isIn = ({ state }: Room): boolean => state === 'joined' || state === 'joining';

/** A name that nobody else has. Pages that came without TLS have no `randomUUID`. */
export const freshName = (): string => crypto.getRandomValues(new Uint32Array(4)).join('-');

/** What is wanted of a room, as commands say it. */
const wanted = ({ options: { presence = false, filter = null } }: Room): object => ({ presence, filter });
