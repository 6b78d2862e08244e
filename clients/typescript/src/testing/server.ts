// A server in the test's own process, on virtual time, that can be cut off, slowed down and killed.
//
// It must never be taken for the real one: it knows no rights, classes or limits but what is said here.

import { VirtualClock } from './clock.js';
import { FakeConnection } from './connection.js';
import { FakeRoom } from './log.js';
import { Network, seeded, type Wire } from './network.js';

/** How the fake server is. */
export interface FakeServerOptions {
  /** What jitter is drawn from; 1. */
  seed?: number;
  /** Whether who shows no token is welcome; true. */
  anonymous?: boolean;
  heartbeatMs?: number;
  /** How many messages a room keeps; 1,000. */
  entriesMax?: number;
  /** Whether logs and message ids outlive a crash; false. */
  durable?: boolean;
  /** Who a token is; undefined for one that does not count. Without it every token is a user's name. */
  authenticate?: (token: string) => string | undefined;
  /** Whether `/ws/client` sends back what it does not know; false. */
  echo?: boolean;
}

type Refusal = { code: number; error: string; retry_after_ms?: number | null };

/** A server for tests of one's own. */
export class FakeServer {
  readonly clock = new VirtualClock();
  readonly network: Network;
  readonly options: Required<Omit<FakeServerOptions, 'authenticate'>>;
  readonly connections = new Set<FakeConnection>();
  /** Every command that has come, oldest first. */
  readonly received: { type: string; [field: string]: unknown }[] = [];
  /** Rooms that nobody may be in. */
  readonly forbidden = new Set<string>();
  /** Types of commands that are refused. */
  readonly refusals = new Map<string, Refusal>();
  /** Tickets that do not count any more. */
  readonly spoiltTickets = new Set<string>();
  readonly #authenticate: (token: string) => string | undefined;
  #rooms = new Map<string, FakeRoom>();
  #taken = new Map<string, { offset: number | null; epoch: string }>();
  #epochs = 1;
  #ids = 0;
  #isUp = true;
  #nextClose: number | null = null;

  constructor(options: FakeServerOptions = {}) {
    const { seed = 1, authenticate = (token: string) => token } = options;
    this.#authenticate = authenticate;
    const defaults = { seed, anonymous: true, heartbeatMs: 25_000, entriesMax: 1000, durable: false, echo: false };
    this.options = { ...defaults, ...options };
    this.network = new Network(this.clock, (url, wire) => this.#accept(url, wire), seeded(seed));
  }

  /** The world for a client: its option `environment`. */
  get environment() {
    return this.network.environment;
  }

  // --- what goes wrong -----------------------------------------------------------------------------

  /** Nothing passes any more, and nobody is told. */
  partition(): void {
    this.network.isParted = true;
  }

  /** Everything passes again, what was held back first. */
  heal(): void {
    this.network.heal();
  }

  /** What is sent from now on takes so long, one way. */
  delay(ms: number): void {
    this.network.delayMs = ms;
  }

  /** All connections break, and none is taken until {@link restart}. What was in memory is lost. */
  crash(): void {
    this.#isUp = false;
    this.network.breakAll();
    this.connections.clear();
    for (const room of this.#rooms.values()) {
      room.members.clear();
      room.seq = 0;
      if (!this.options.durable) room.renew(++this.#epochs);
    }
    if (!this.options.durable) this.#taken.clear();
  }

  restart(): void {
    this.#isUp = true;
  }

  /** All connections break; the server goes on. */
  breakConnections(): void {
    this.network.breakAll();
  }

  /** Closes every connection. */
  close(code: number, reason = '', afterMs: number | null = null): void {
    for (const connection of [...this.connections]) connection.close(code, reason, afterMs);
  }

  /** Closes the next connection with this code as soon as it is open. */
  closeNext(code: number): void {
    this.#nextClose = code;
  }

  // --- what the application's backend does ---------------------------------------------------------

  /** Publishes as the server. */
  publish(room: string, data: unknown, more: object = {}): number {
    const entry = this.room(room).append({
      sender: { user_id: null, connection_id: null },
      data,
      ...more,
      timestamp: this.timestamp(),
    });
    this.#deliver(room, entry);
    return entry.offset ?? 0;
  }

  room(name: string): FakeRoom {
    let room = this.#rooms.get(name);
    if (!room) {
      room = new FakeRoom(name, this.#epochs, this.options.entriesMax);
      this.#rooms.set(name, room);
    }
    return room;
  }

  // --- for its connections -------------------------------------------------------------------------

  timestamp(): string {
    return new Date(this.environment.wall()).toISOString();
  }

  ticket(user: string): string {
    return `ticket-of-${user}`;
  }

  /** Who shows that; undefined where neither counts. */
  authenticate(token: unknown, session: unknown): string | null | undefined {
    if (typeof session === 'string' && session.startsWith('ticket-of-') && !this.spoiltTickets.has(session)) {
      return session.slice('ticket-of-'.length);
    }
    if (typeof token === 'string') return this.#authenticate(token);
    return this.options.anonymous ? null : undefined;
  }

  /** Takes a publish, once. */
  take(from: FakeConnection, command: { [field: string]: unknown }): void {
    const { id = null, room: name, msg_id, data, echo = true, class: kind, key, tags } = command;
    const room = this.room(name as string);
    const taken = `${from.user ?? from.clientId} ${room.name} ${msg_id}`;
    const before = typeof msg_id === 'string' ? this.#taken.get(taken) : undefined;
    const answer = { type: 'ack', id, room: room.name, level: 'accepted' };
    if (before) return from.say({ ...answer, ...before, duplicate: true });
    const said = { sender: { user_id: from.user, connection_id: from.id }, tags, data, timestamp: this.timestamp() };
    const { epoch } = room;
    const entry =
      kind === 'latest' || kind === 'droppable'
        ? ({ type: 'message', room: room.name, epoch, offset: null, class: kind, key, ...said } as never)
        : room.append(said);
    if (kind === 'latest') room.latest.set(String(key), entry);
    const { offset } = entry as { offset: number | null };
    this.#taken.set(taken, { offset, epoch });
    this.#deliver(room.name, entry, echo ? null : from);
    from.say({ ...answer, offset, epoch, duplicate: false });
  }

  come(room: FakeRoom, user_id: string): void {
    const member = room.members.get(user_id);
    if (member) member.connections += 1;
    else {
      room.members.set(user_id, { user_id, data: null, connections: 1 });
      this.change(room, 'join', user_id, null);
    }
  }

  go(room: FakeRoom, user_id: string): void {
    const member = room.members.get(user_id);
    if (!member) return;
    member.connections -= 1;
    if (member.connections > 0) return;
    room.members.delete(user_id);
    this.change(room, 'leave', user_id, null);
  }

  change(room: FakeRoom, event: string, user_id: string, data: unknown): void {
    room.seq += 1;
    const member = room.members.get(user_id);
    if (member && event === 'update') member.data = data;
    for (const connection of this.connections) {
      if (connection.rooms.get(room.name)) {
        const total = room.members.size;
        connection.say({ type: 'presence_event', room: room.name, seq: room.seq, total, event, user_id, data });
      }
    }
  }

  present(room: FakeRoom): object {
    const members = [...room.members.values()].sort((a, b) => (a.user_id < b.user_id ? -1 : 1));
    return { seq: room.seq, total: members.length, members };
  }

  #deliver(room: string, entry: object, except: FakeConnection | null = null): void {
    for (const connection of this.connections) {
      if (connection !== except && connection.rooms.has(room)) connection.raw(JSON.stringify(entry));
    }
  }

  #accept(address: string, wire: Wire): FakeConnection | number {
    if (!this.#isUp) return 1006;
    const code = this.#nextClose;
    this.#nextClose = null;
    if (code !== null) return code;
    const url = new URL(address);
    const isV2 = url.pathname === '/ws/v2/connect';
    const clientId = url.searchParams.get('client_id') ?? `c-${this.#ids}`;
    this.#ids += 1;
    const id = this.#ids.toString(16).padStart(16, '0');
    const connection = new FakeConnection(this, wire, id, clientId, isV2);
    this.connections.add(connection);
    return connection;
  }
}
