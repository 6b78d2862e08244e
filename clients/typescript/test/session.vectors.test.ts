// Protocol v2 frame by frame, against the conformance vectors.
// It must never know what a step is for.

import { expect, it } from 'vitest';
import type { SocketLike } from '../src/connection/environment.js';
import { type RequestError, RoomkeeperClient } from '../src/index.js';
import { Pattern } from '../src/patterns.js';
import { VirtualClock } from '../src/testing/index.js';
import { vectors } from './vectors.js';

type Step = Record<string, never>;

/** A socket that does nothing by itself. */
class Scripted implements SocketLike {
  onopen = null as never as () => void;
  onmessage = null as never as (event: { data: string }) => void;
  onerror = null;
  onclose = null as never as (event: { code: number; reason: string }) => void;
  sent: string[] = [];
  isClosed = false;
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.isClosed = true;
  }
}

/** Null and false are the same as none. */
function bare(value: unknown): unknown {
  const text = JSON.stringify(value, (_, inner) => (inner === null || inner === false ? undefined : inner));
  return JSON.parse(text);
}

function start(token: string | undefined, brings: boolean) {
  const clock = new VirtualClock();
  const sockets: Scripted[] = [];
  const environment = {
    socket: () => {
      const socket = new Scripted();
      sockets.push(socket);
      return socket as never;
    },
    now: () => clock.now(),
    wall: () => clock.now(),
    random: () => 0,
    setTimer: (action: () => void, ms: number) => clock.setTimer(action, ms),
    clearTimer: (timer: unknown) => clock.clearTimer(timer),
    onWake: () => () => {},
  };
  const asked: { resolve: (token: string) => void; reject: (why: unknown) => void }[] = [];
  const source = () => new Promise<string>((resolve, reject) => void asked.push({ resolve, reject }));
  const client = new RoomkeeperClient({ url: 'ws://h', token: brings ? source : (token ?? null), environment });
  return { clock, sockets, client, asked };
}

/** Plays one case. */
class Player {
  readonly told: unknown[] = [];
  readonly settled: [string, string][] = [];
  /** Who came, went or changed. */
  readonly changes: [string, string][] = [];
  readonly world: ReturnType<typeof start>;
  #sent = 0;
  /** How many tokens were asked for until the last step that says so. */
  #asked = 0;
  #pattern: Pattern | null = null;

  constructor(token: string | undefined, brings: boolean) {
    this.world = start(token, brings);
    const room = this.world.client.room('public:r');
    room.on('message', ({ offset, data }) => this.told.push(['message', offset, data]));
    room.on('tombstone', ({ offset }) => this.told.push(['tombstone', offset]));
    room.on('gap', ({ from, to, reason }) => this.told.push(['gap', from, to, reason]));
    room.on('joined', ({ position }) => this.told.push(['joined', position]));
    room.on('caughtUp', (position) => this.told.push(['caughtUp', position]));
    room.on('left', ({ code }) => this.told.push(['left', code]));
    room.on('presenceChange', (frame) => {
      const all = frame.type === 'presence_events' ? frame.changes : [frame];
      for (const { event, user_id } of all) this.changes.push([event, user_id]);
    });
    this.world.client.connect();
  }

  get socket(): Scripted {
    return this.world.sockets.at(-1) as Scripted;
  }

  watch(name: string, promise: Promise<unknown>, how: string): void {
    promise.then(
      () => this.settled.push([name, how]),
      (error: RequestError) => this.settled.push([name, error.code]),
    );
  }

  async act(step: Step): Promise<void> {
    const { client, clock, asked } = this.world;
    const { open, reopen, receive, receiveText, lose, advance, publish } = step;
    if (reopen) await clock.advance(0);
    if (open || reopen) {
      this.#sent = 0;
      this.socket.onopen();
    }
    if (receive) this.socket.onmessage({ data: JSON.stringify(receive) });
    if (receiveText) this.socket.onmessage({ data: receiveText });
    if (lose) this.socket.onclose(lose);
    if (advance) await clock.advance(advance);
    if (step.join) this.watch('join', client.room(step.join).join(step.options), 'joined');
    if (step.bring) asked.at(-1)?.resolve(step.bring);
    if (step.bringNone) asked.at(-1)?.reject(step.bringNone);
    if (step.follow) this.#follow(step.follow);
    if (step.unfollow) this.#pattern?.stop();
    if (step.leave) void client.room(step.leave).leave();
    if (publish) {
      const { room, data, msg_id, ...more } = publish as { room: string; data: unknown; msg_id: string };
      this.watch(msg_id, client.room(room).publish(data, { msgId: msg_id, ...more }), 'acked');
    }
    await clock.advance(0);
  }

  #follow(name: string): void {
    const pattern = new Pattern(this.world.client, name);
    pattern.on('message', ({ offset, data }) => this.told.push(['of pattern', offset, data]));
    pattern.on('following', () => this.told.push(['following']));
    pattern.on('ended', ({ code }) => this.told.push(['ended', code]));
    this.#pattern = pattern;
  }

  check(step: Step): void {
    const { asked, client } = this.world;
    if (step.asked !== undefined) {
      expect(asked.length - this.#asked).toBe(step.asked);
      this.#asked = asked.length;
    }
    if (step.phase) expect(client.state.phase).toBe(step.phase);
    const room = this.world.client.room('public:r');
    if (step.sent) {
      const frames = this.socket.sent.slice(this.#sent).map((text) => bare(JSON.parse(text)));
      this.#sent = this.socket.sent.length;
      expect(frames.map(withoutEmpty)).toEqual((step.sent as unknown[]).map(bare));
    }
    if (step.told) expect(this.told.splice(0)).toEqual(step.told);
    if (step.changes) expect(this.changes.splice(0)).toEqual(step.changes);
    if (step.settled) expect(this.settled.splice(0)).toEqual(step.settled);
    if (step.position) expect(room.position).toEqual(step.position);
    if (step.state) expect(room.state).toBe(step.state);
    if (step.members) expect([...(room.presence?.members.keys() ?? [])]).toEqual(step.members);
    if (step.total !== undefined) expect(room.presence?.total).toBe(step.total);
    if (step.closed) expect(this.world.sockets.some(({ isClosed }) => isClosed)).toBe(true);
    if (step.opening !== undefined) {
      const isOpening = ['connecting', 'reconnecting'].includes(this.world.client.state.phase) && !this.socket.isClosed;
      expect(isOpening).toBe(step.opening);
    }
  }
}

/** No rooms to resume is the same as none. */
function withoutEmpty(frame: unknown): unknown {
  const { resume, ...rest } = frame as { resume?: unknown[] };
  return resume && resume.length > 0 ? frame : rest;
}

type Case = { token?: string; brings?: boolean; steps: Step[] };

it.each(vectors<Case>('session').cases)('$name', async ({ token, brings = false, steps }) => {
  const player = new Player(token, brings);
  for (const step of steps) {
    await player.act(step);
    player.check(step);
  }
  player.world.client.close();
  expect(player.world.clock.pending).toBe(0);
});
