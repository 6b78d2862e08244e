// What the client of protocol v2 decides: texts, wishes and the passing of time go in; frames and events
// come out.
//
// It must never read a socket or a clock, and never throw at what a server says: a frame that makes no
// sense is told as a violation and passed over. What it may have taken with it shows as a hole.

import type { Closed } from '../connection/driver.js';
import { Events } from '../emitter.js';
import type { HelloFrame, Position } from '../protocol.js';
import { uuid } from '../uuid.js';
import { heartbeat } from '../wire.js';
import { HANDLERS, resumed } from './frames.js';
import { Pattern } from './pattern.js';
import { type Frame, type Pending, type Publish, Requests } from './requests.js';
import { Room } from './room.js';
import { type ClientEvents, type Published, type PublishOptions, RequestError } from './types.js';

/** How many rooms one client may be in. Servers take fewer. */
const ROOMS_MAX = 4096;
/** How many patterns one client may follow. Servers take fewer. */
const PATTERNS_MAX = 64;
/** How many rooms `connect` names, and how many characters of them: the rest is asked for one by one. */
const RESUME_MAX = 128;
const RESUME_CHARACTERS_MAX = 32 * 1024;
/** When to try again after a refusal for the moment that names no time, in ms. */
const RETRY_MS = 2000;
/** How long a server that said `disconnect` has to close, in ms. */
const FAREWELL_MS = 5000;
/** The largest message that is taken from a server, in characters. */
const TEXT_MAX = 64 * 1024 * 1024;
/** How much may wait in the socket before a server's pings go unanswered: everything sent counts as life. */
const PONG_BUFFER_MAX = 64 * 1024;

/** What a session needs of its driver. */
export interface Host {
  now(): number;
  /** Answers whether it went out. */
  send(text: string): boolean;
  buffered(): number;
  abandon(closed: Closed): void;
  greeted(heartbeatMs: number): void;
  /** There is something to do by then. */
  due(at: number): void;
  /** Calls back once, unless the client is closed before. */
  later(ms: number, action: () => void): void;
}

/** How long answers may take, and how much may wait. */
export interface SessionLimits {
  requestTimeoutMs: number;
  publishTimeoutMs: number;
  outboxMax: number;
  outboxCharactersMax: number;
}

/** The state of one client. */
export class Session {
  readonly events = new Events<ClientEvents>();
  readonly rooms = new Map<string, Room>();
  readonly patterns = new Map<string, Pattern>();
  readonly requests: Requests;
  /** Counts connections; 0 while there is none. Whoever calls out compares it afterwards. */
  stage: 'offline' | 'greeting' | 'online' = 'offline';
  connection = 0;
  /** The rooms that the server put this connection into without being asked. */
  ownRooms = new Set<string>();
  token: string | null = null;
  /** What the server gave to come back with. */
  ticket: string | null = null;
  #mayResume = false;
  /** The id of our `connect`, if `hello` has to answer it; and whether it asked for more than to be known. */
  #connectId: number | null = null;
  #resumes = false;
  #earlyHello: HelloFrame | null = null;
  #farewell: (Closed & { until: number }) | null = null;

  constructor(
    readonly host: Host,
    readonly limits: SessionLimits,
  ) {
    this.requests = new Requests(limits.outboxMax, limits.outboxCharactersMax);
  }

  /** The room of this name. */
  room(name: string): Room {
    let room = this.rooms.get(name);
    if (!room) {
      room = new Room(name, this);
      this.rooms.set(name, room);
    }
    return room;
  }

  /** The pattern, followed from now on. */
  follow(name: string): Pattern {
    let pattern = this.patterns.get(name);
    if (!pattern) {
      if (this.patterns.size >= PATTERNS_MAX) throw new RequestError('too_many');
      pattern = new Pattern(name, this);
      this.patterns.set(name, pattern);
      pattern.follow();
    }
    return pattern;
  }

  /** Takes a token that may be another user's: a ticket would come before it. */
  setToken(token: string | null): void {
    this.token = token;
    this.ticket = null;
  }

  /** The socket is open. */
  opened(): void {
    this.connection += 1;
    this.stage = 'greeting';
    this.#earlyHello = null;
    this.#connect(this.ticket, this.#mayResume ? this.#resumable() : []);
  }

  /** Says who the client is and where it was, if there is anything to say. */
  #connect(session: string | null, resume: object[]): void {
    this.#resumes = session !== null || resume.length > 0;
    this.#connectId = null;
    if (this.token === null && !this.#resumes) return;
    const id = this.requests.nextId();
    this.#connectId = id;
    const command = { type: 'connect', id, token: this.token ?? undefined, session: session ?? undefined };
    this.say({ ...command, resume: resume.length > 0 ? resume : undefined });
  }

  /** The rooms to name in `connect`; they are on the way in from then on. */
  #resumable(): object[] {
    const resume: object[] = [];
    let characters = 0;
    for (const room of this.rooms.values()) {
      const at = room.position;
      if (room.state !== 'away' || !at || resume.length === RESUME_MAX) continue;
      const named = { room: room.name, ...at, ...wanted(room) };
      characters += JSON.stringify(named).length;
      if (characters > RESUME_CHARACTERS_MAX) break;
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
    if (!isTemporary && this.hasResumed) {
      // Without ticket and rooms, then, and room by room.
      this.forgetResume();
      for (const room of this.rooms.values()) if (room.state === 'joining') room.become('away');
      this.#connect(null, []);
      if (this.#connectId === null && this.#earlyHello) this.#online(this.#earlyHello);
      return;
    }
    this.host.abandon({ code: isTemporary ? 1013 : 3500, reason, after });
  }

  /** Whether an answer is that to our `connect`. */
  isConnect(id: unknown): boolean {
    return this.#connectId !== null && id === this.#connectId;
  }

  /** `hello` came. */
  greeted(hello: HelloFrame): void {
    if (this.stage !== 'greeting') return;
    this.ticket = typeof hello.session === 'string' ? hello.session : null;
    this.#mayResume = list(hello.features).includes('resume');
    // The greeting before our `connect` is not its answer, which is still on its way.
    if (this.#connectId !== null && !this.isConnect(hello.id)) this.#earlyHello = hello;
    else this.#online(hello);
  }

  /** Everything that is wanted is asked for, in the order in which it was wanted. */
  #online(hello: HelloFrame): void {
    const { connection } = this;
    this.stage = 'online';
    this.#connectId = this.#earlyHello = null;
    this.ownRooms = new Set(list(hello.rooms) as string[]);
    for (const room of [...this.rooms.values()]) if (room.state === 'away') this.sendJoin(room);
    for (const pattern of [...this.patterns.values()]) pattern.follow();
    for (const publish of this.requests.outbox()) this.#sendPublish(publish);
    this.host.greeted(heartbeat(hello.heartbeat_interval_ms));
    this.events.emit('hello', hello);
    for (const outcome of list(hello.resumed)) {
      if (this.connection === connection) this.#guarded(() => resumed(this, outcome as Frame));
    }
    if (this.connection !== connection) return;
    for (const room of [...this.rooms.values()]) {
      // Named, and left out of the answer.
      if (room.state === 'joining' && room.joinId === null) this.sendJoin(room);
    }
  }

  /** One text of the server's: a frame on each line. */
  text(data: unknown): void {
    if (typeof data !== 'string' || data.length > TEXT_MAX) {
      const reason = typeof data === 'string' ? 'a message is too large' : 'a binary message came';
      this.violation(reason);
      return this.host.abandon({ code: 1006, reason });
    }
    const { connection } = this;
    for (const line of data.split('\n')) {
      if (line.trim() && this.connection === connection) this.#line(line);
    }
  }

  #line(line: string): void {
    this.#guarded(() => {
      const frame = JSON.parse(line) as Frame | null;
      if (typeof frame?.type !== 'string') throw new TypeError('a frame without a type');
      const handler = Object.hasOwn(HANDLERS, frame.type) ? HANDLERS[frame.type] : undefined;
      if (handler) handler(this, frame);
      else if (!this.answer(frame)) this.events.emit('frame', frame);
    });
  }

  /** What a stranger says may be anything. */
  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.violation(`a frame makes no sense: ${(error as Error).message}`);
    }
  }

  violation(words: string): void {
    this.events.emit('violation', words);
  }

  /** The connection is gone. */
  lost(): void {
    const wasOnline = this.stage === 'online';
    this.stage = 'offline';
    this.connection += 1;
    this.#farewell = this.#earlyHello = null;
    this.#connectId = null;
    this.ownRooms.clear();
    for (const publish of this.requests.outbox()) publish.heldUntil = null;
    this.requests.reject('disconnected', false);
    for (const room of [...this.rooms.values()]) {
      room.joinId = room.leaveId = room.retryAt = null;
      if (room.state === 'leaving') this.out(room);
      else if (room.state !== 'out') room.become('away');
    }
    for (const pattern of [...this.patterns.values()]) {
      if (wasOnline) pattern.events.emit('ended', { code: null, reason: null });
    }
  }

  /** The client ends: nobody is left without an answer. */
  close(): void {
    this.lost();
    this.requests.reject('closed', true);
    for (const room of [...this.rooms.values()]) {
      room.failed(new RequestError('closed'));
      this.out(room);
    }
  }

  /** What the server said about the end, where the socket says less. */
  explain(code: number): Partial<Closed> {
    const said = this.#farewell;
    if (!said) return {};
    const words = code === 1005 || code === 1006 ? { code: said.code, reason: said.reason } : {};
    return { ...words, after: said.after };
  }

  farewell(code: number, reason: string, after: number | null): void {
    const until = this.host.now() + FAREWELL_MS;
    this.#farewell = { code, reason, after, until };
    this.host.due(until);
  }

  /** Says a command; answers whether it went out. */
  say(command: object): boolean {
    return this.host.send(JSON.stringify(command));
  }

  pong(): void {
    if (this.host.buffered() < PONG_BUFFER_MAX) this.say({ type: 'pong' });
  }

  /** Asks the server something that only makes sense on this connection. */
  ask<F>(answer: string | null, command: object, timeoutMs = this.limits.requestTimeoutMs): Promise<F> {
    return this.#promise((resolve, reject) => {
      const id = this.requests.nextId();
      const text = JSON.stringify({ ...command, id });
      if (this.stage !== 'online') throw new RequestError('disconnected');
      this.#insert({ id, answer, deadline: this.host.now() + timeoutMs, resolve, reject });
      this.host.send(text);
    });
  }

  /** Puts a publish into the outbox, and sends it if there is a connection. */
  publish(room: string, data: unknown, options: PublishOptions): Promise<Published> {
    return this.#promise((resolve, reject) => {
      const id = this.requests.nextId();
      const { msgId = uuid(), echo = true, ttlMs, ...rest } = options;
      const named = { type: 'publish', id, room, data: data === undefined ? null : data, msg_id: msgId, ...rest };
      const text = JSON.stringify({ ...named, echo: echo ? undefined : false, ttl_ms: ttlMs });
      const publish: Publish = { msgId, room, echo, text, sent: 0, heldUntil: null };
      const deadline = this.host.now() + this.limits.publishTimeoutMs;
      const acked = (frame: Frame) => resolve({ ...frame, msg_id: msgId });
      this.#insert({ id, answer: 'ack', deadline, resolve: acked, reject, publish });
      if (this.stage === 'online') this.#sendPublish(publish);
    });
  }

  /** A promise that nobody has to look at. */
  #promise<F>(start: (resolve: (frame: Frame) => void, reject: (error: RequestError) => void) => void): Promise<F> {
    const promise = new Promise<Frame>(start);
    promise.catch(() => {});
    return promise as Promise<F>;
  }

  #insert(pending: Pending): void {
    this.requests.insert(pending);
    this.host.due(pending.deadline);
  }

  #sendPublish(publish: Publish): void {
    publish.heldUntil = null;
    if (this.host.send(publish.text)) publish.sent += 1;
  }

  /** Keeps a publish back for a while. */
  hold(publish: Publish, after: number | null): void {
    publish.heldUntil = this.host.now() + (after ?? RETRY_MS);
    this.host.due(publish.heldUntil);
  }

  /** Hands an answer to whoever asked; false when nobody did. */
  answer(frame: Frame): boolean {
    const pending = this.requests.get(frame.id);
    if (!pending) return false;
    this.requests.take(frame.id);
    if (pending.answer === null || pending.answer === frame.type) {
      pending.resolve(frame);
    } else {
      this.violation('an answer to another question');
      this.requests.fail(pending, 'disconnected');
    }
    return true;
  }

  join(room: Room): void {
    const joined = [...this.rooms.values()].filter((other) => other.state !== 'out');
    if (joined.length >= ROOMS_MAX) return room.failed(new RequestError('too_many'));
    this.rooms.set(room.name, room);
    if (this.stage === 'online') this.sendJoin(room);
    else room.become('away');
  }

  sendJoin(room: Room): void {
    const id = this.requests.nextId();
    room.joinId = id;
    room.retryAt = null;
    room.become('joining');
    const since = room.position ?? undefined;
    this.say({ type: 'subscribe', id, room: room.name, since, ...wanted(room) });
    this.host.due(this.host.now() + this.limits.requestTimeoutMs);
    room.joinBy = this.host.now() + this.limits.requestTimeoutMs;
  }

  /** In again from where it stands, with other wishes. */
  rejoin(room: Room): void {
    if (this.stage !== 'online' || room.state === 'away') return;
    this.#sendLeave(room);
    this.sendJoin(room);
  }

  leave(room: Room): Promise<void> {
    if (room.state === 'joined' || room.state === 'joining') {
      room.become('leaving');
      const { connection } = this;
      const settled = () => {
        // No answer came in time: it is forgotten all the same.
        if (this.connection === connection && room.state === 'leaving') this.out(room);
      };
      return this.#sendLeave(room).then(settled, settled);
    }
    if (room.state !== 'leaving') this.out(room);
    return Promise.resolve();
  }

  #sendLeave(room: Room): Promise<unknown> {
    const asked = this.ask('unsubscribed', { type: 'unsubscribe', room: room.name });
    room.leaveId = this.requests.lastId;
    room.joinId = null;
    return asked;
  }

  /** It is out, whoever wanted that. */
  out(room: Room): void {
    room.joinId = room.leaveId = room.retryAt = null;
    room.become('out');
  }

  /** Joining failed for the moment. */
  rejoinLater(room: Room, after: number | null): void {
    room.joinId = null;
    room.become('away');
    room.retryAt = this.host.now() + (after ?? RETRY_MS);
    this.host.due(room.retryAt);
  }

  /** Does what is due, and says when there is more. */
  tick(): void {
    const now = this.host.now();
    if (this.#farewell && this.#farewell.until <= now) return this.host.abandon(this.#farewell);
    for (const pending of this.requests.expired(now)) this.requests.fail(pending, 'timed_out');
    for (const publish of this.requests.outbox()) {
      if (publish.heldUntil !== null && publish.heldUntil <= now && this.stage === 'online') this.#sendPublish(publish);
    }
    for (const room of [...this.rooms.values()]) {
      if (room.state === 'joining' && room.joinId !== null && room.joinBy <= now) {
        // Asking again on this connection could only be refused as asking twice.
        return this.host.abandon({ code: 1006, reason: `no answer to subscribe to ${room.name}` });
      }
      if (room.retryAt !== null && room.retryAt <= now && this.stage === 'online') this.sendJoin(room);
    }
    this.host.due(this.#due());
  }

  #due(): number {
    let due = Math.min(this.requests.due(), this.#farewell?.until ?? Number.POSITIVE_INFINITY);
    for (const room of this.rooms.values()) {
      if (room.joinId !== null) due = Math.min(due, room.joinBy);
      due = Math.min(due, room.retryAt ?? due);
    }
    return due;
  }

  /** Where the client stands is not what the server said: come back to fill the hole, once. */
  hole(room: Room, at: Position, from: number, to: number): boolean {
    this.violation(`${room.name}: ${from} to ${to} are missing`);
    const stood = room.position?.offset ?? 0;
    if (room.holeAt !== stood) {
      room.holeAt = stood;
      this.host.abandon({ code: 3003, reason: 'messages are missing' });
      return false;
    }
    room.events.emit('gap', { epoch: at.epoch, from, to, reason: 'missing' });
    return true;
  }
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** What is wanted of a room, as commands say it. */
function wanted({ options }: Room): object {
  return { presence: options.presence || undefined, filter: options.filter ?? undefined };
}
