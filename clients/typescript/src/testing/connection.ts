// One connection of the fake server: what each command of protocol v2, and of `/ws/client`, is answered.
//
// It must never keep to less than the protocol's order: commands are carried out one at a time, and what
// was missed comes before what is live.

import type { Position } from '../protocol.js';
import type { FakeRoom, Missed } from './log.js';
import type { ServerEnd, Wire } from './network.js';
import type { FakeServer } from './server.js';

type Command = { type: string; id?: number; room?: string; [field: string]: unknown };
type Outcome = { room: string; epoch: string; offset: number } & Missed;

/** How many messages a `subscribed`, an entry of `hello` or a `page` holds. */
const PAGE = 100;

export class FakeConnection implements ServerEnd {
  user: string | null = null;
  /** The rooms that it is in, and whether it follows who comes and goes. */
  readonly rooms = new Map<string, boolean>();
  #isKnown = false;
  #pinger: unknown = null;

  constructor(
    readonly server: FakeServer,
    readonly wire: Wire,
    readonly id: string,
    readonly clientId: string,
    /** Whether it speaks protocol v2. */
    readonly isV2: boolean,
  ) {}

  start(): void {
    if (this.server.options.anonymous || !this.isV2) this.#hello(null, []);
  }

  /** Who it is in presence. */
  get member(): string {
    return this.user ?? `anonymous:${this.id}`;
  }

  say(frame: object): void {
    const { clock, options } = this.server;
    this.wire.send(JSON.stringify({ ...frame, timestamp: this.server.timestamp() }));
    clock.clearTimer(this.#pinger);
    this.#pinger = clock.setTimer(() => this.say({ type: 'ping' }), options.heartbeatMs);
  }

  /** Sends as it is, for what no real server would say. */
  raw(text: string): void {
    this.wire.send(text);
  }

  gone(): void {
    this.server.clock.clearTimer(this.#pinger);
    for (const room of [...this.rooms.keys()]) this.#leave(room);
    this.server.connections.delete(this);
  }

  close(code: number, reason: string, afterMs: number | null = null): void {
    if (this.isV2) this.say({ type: 'disconnect', code, reason, reconnect: true, reconnect_after_ms: afterMs });
    this.gone();
    this.wire.close(code, reason);
  }

  text(text: string): void {
    const command = JSON.parse(text) as Command;
    this.server.received.push(command);
    const refusal = this.server.refusals.get(command.type);
    if (refusal) return this.error(command, refusal);
    if (command.type === 'ping') return this.say({ type: 'pong', id: command.id ?? null });
    if (command.type === 'pong') return;
    if (!this.isV2) return this.#clientMessage(command);
    if (command.type === 'connect') return this.#connect(command);
    if (!this.#isKnown) return this.error(command, { code: 111, error: 'not_connected' });
    this.#command(command);
  }

  error(command: Command, refusal: { code: number; error: string; retry_after_ms?: number | null }): void {
    const id = command.id ?? null;
    this.say({ type: 'error', id, message: refusal.error, field: null, retry_after_ms: null, ...refusal });
  }

  #clientMessage(command: Command): void {
    if (command.type === 'status') return this.say({ type: 'status', status: 'connected', client_id: this.clientId });
    if (this.server.options.echo) return this.say({ ...command });
    this.error(command, { code: 101, error: 'unknown_type' });
  }

  #hello(id: number | null, resumed: object[]): void {
    this.#isKnown = true;
    const { options } = this.server;
    const time = this.server.timestamp();
    if (!this.isV2) {
      const features = ['heartbeat', 'structured_messages', 'error_codes', 'graceful_reconnect'];
      const greeting = { type: 'hello', server_time: time, accepted_version: 1, features, request_id: `r-${this.id}` };
      return this.say({ ...greeting, client_id: this.clientId, heartbeat_interval_ms: options.heartbeatMs });
    }
    this.say({
      type: 'hello',
      id,
      server_time: time,
      accepted_version: 2,
      features: ['recovery', 'history', 'presence', 'dedup', 'resume'],
      request_id: `r-${this.id}`,
      client_id: this.clientId,
      connection_id: this.id,
      user_id: this.user,
      rooms: [],
      session: this.user === null ? null : this.server.ticket(this.user),
      resumed,
      heartbeat_interval_ms: options.heartbeatMs,
    });
  }

  #connect(command: Command): void {
    const shown = this.server.authenticate(command.token, command.session);
    if (shown === undefined) return this.close(3500, 'unauthenticated');
    this.user = shown;
    const pages: (() => void)[] = [];
    const resumed = ((command.resume ?? []) as { room: string; presence?: boolean }[]).map((named) => {
      if (this.server.forbidden.has(named.room)) {
        return {
          room: named.room,
          error: { code: 103, error: 'permission_denied', message: '', retry_after_ms: null },
        };
      }
      const { outcome, more } = this.#enter(named.room, named as unknown as Position, named.presence === true);
      pages.push(() => this.#pages(outcome, more));
      return { ...outcome, messages: outcome.messages.slice(0, PAGE), offset: reached(outcome), more: more.length > 0 };
    });
    this.#hello(command.id ?? null, resumed);
    for (const page of pages) page();
  }

  /** Takes the connection into a room, and finds what it missed. */
  #enter(name: string, since: Position | null, presence: boolean): { outcome: Outcome; more: Outcome['messages'] } {
    const room = this.server.room(name);
    const missed = room.since(since);
    this.rooms.set(name, presence);
    this.server.come(room, this.member);
    const outcome = { room: name, epoch: room.epoch, offset: room.offset, ...missed };
    return { outcome, more: missed.messages.slice(PAGE) };
  }

  #pages(outcome: Outcome, more: Outcome['messages']): void {
    for (let at = 0; at < more.length; at += PAGE) {
      const messages = more.slice(at, at + PAGE);
      const { room, epoch } = outcome;
      const offset = messages.at(-1)?.offset ?? outcome.offset;
      this.say({ type: 'page', room, epoch, offset, messages, more: at + PAGE < more.length });
    }
  }

  #command(command: Command): void {
    const { id = null } = command;
    const name = command.room ?? '';
    if (this.server.forbidden.has(name)) return this.error(command, { code: 103, error: 'permission_denied' });
    switch (command.type) {
      case 'subscribe':
        return this.#subscribe(command, name);
      case 'unsubscribe':
        if (!this.rooms.has(name)) return this.error(command, { code: 105, error: 'not_subscribed' });
        this.#leave(name);
        return this.say({ type: 'unsubscribed', id, room: name, code: null, reason: null });
      case 'publish':
        return this.server.take(this, command);
      case 'presence':
        return this.say({ type: 'presence', id, room: name, ...this.server.present(this.server.room(name)) });
      case 'presence_update':
        this.server.change(this.server.room(name), 'update', this.member, command.data);
        return this.say({ type: 'presence_updated', id, room: name });
      case 'history':
        return this.#history(command, this.server.room(name));
      case 'refresh':
        this.user = this.server.authenticate(command.token, null) ?? this.user;
        return this.say({ type: 'refreshed', id, expires_at: null, session: this.server.ticket(this.user ?? '') });
      case 'status':
        return this.say({
          type: 'status',
          id,
          connection_id: this.id,
          user_id: this.user,
          rooms: [...this.rooms.keys()],
        });
      default:
        return this.error(command, { code: 101, error: 'unknown_type' });
    }
  }

  #subscribe(command: Command, name: string): void {
    if (this.rooms.has(name)) return this.error(command, { code: 106, error: 'already_subscribed' });
    const { outcome, more } = this.#enter(name, (command.since ?? null) as Position | null, command.presence === true);
    const { epoch, gap, recovered } = outcome;
    if (gap) this.say({ type: 'gap', room: name, epoch, ...gap });
    const latest = [...this.server.room(name).latest.values()];
    const messages = [...outcome.messages.slice(0, PAGE), ...latest];
    const offset = reached(outcome);
    this.say({
      type: 'subscribed',
      id: command.id ?? null,
      room: name,
      epoch,
      offset,
      recovered,
      messages,
      more: more.length > 0,
    });
    this.#pages(outcome, more);
  }

  #history(command: Command, room: FakeRoom): void {
    const since = (command.since ?? null) as Position | null;
    const all = room.entries.filter(({ offset }) => (offset ?? 0) > (since?.offset ?? 0));
    const messages = all.slice(0, (command.limit as number | undefined) ?? 100);
    const { name, epoch } = room;
    const offset = messages.at(-1)?.offset ?? since?.offset ?? room.offset;
    const more = messages.length < all.length;
    this.say({ type: 'history', id: command.id ?? null, room: name, epoch, offset, messages, more });
  }

  #leave(name: string): void {
    this.rooms.delete(name);
    this.server.go(this.server.room(name), this.member);
  }
}

/** Where the client stands after the first messages. */
function reached(outcome: Outcome): number {
  const last = outcome.messages.slice(0, PAGE).at(-1);
  return outcome.messages.length > PAGE ? (last?.offset ?? outcome.offset) : outcome.offset;
}
