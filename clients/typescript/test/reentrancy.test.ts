// What listeners may do in the midst of anything: publish, join, end the connection, close the client.
// It must never look behind the client's public face.

import { describe, expect, it } from 'vitest';
import type { ClientEvents, RoomState } from '../src/index.js';
import { heardIn, inRoom, serverAndClient } from './world.js';

/** Calls back the first time that a room comes into a state. */
function once(
  room: { on(name: 'state', told: (state: RoomState) => void): unknown },
  state: RoomState,
  act: () => void,
) {
  let isOver = false;
  room.on('state', (told) => {
    if (told !== state || isOver) return;
    isOver = true;
    act();
  });
}

describe('a listener of a room that is asked for behind hello', () => {
  it('publishes behind what has waited, once', async () => {
    const { server, client, clock } = serverAndClient();
    const room = client.room('public:r');
    const heard = heardIn(room);
    void room.publish('first');
    void room.publish('second');
    once(room, 'joining', () => void room.publish('from a listener'));
    void client.room('public:other').join();
    void room.join();
    client.connect();
    await clock.advance(100);
    expect(heard).toEqual(['first', 'second', 'from a listener']);
    expect(server.received.filter(({ type }) => type === 'publish')).toHaveLength(3);
  });

  it('hears a refusal of what it publishes as one', async () => {
    const { server, client, clock } = serverAndClient();
    server.refusals.set('publish', { code: 103, error: 'permission_denied' });
    const room = client.room('public:r');
    let published: Promise<unknown> = Promise.resolve();
    once(room, 'joining', () => {
      published = room.publish('x');
    });
    void room.join();
    client.connect();
    await clock.advance(100);
    await expect(published).rejects.toMatchObject({ code: 'refused' });
  });

  it('ends the connection and begins another, which is greeted by its own server', async () => {
    const { server, client, clock } = serverAndClient();
    const rooms = ['public:r', 'public:other'].map((name) => client.room(name));
    const heard = heardIn(rooms[1] as never);
    once(rooms[0] as never, 'joining', () => {
      client.disconnect();
      client.connect();
    });
    for (const room of rooms) void room.join();
    client.connect();
    const phases: string[] = [];
    client.on('state', ({ phase }) => phases.push(phase));
    await clock.advance(100);
    expect(phases).toEqual(['idle', 'connecting', 'open']);
    expect([client.state.phase, ...rooms.map(({ state }) => state)]).toEqual(['open', 'joined', 'joined']);
    server.publish('public:other', 'x');
    await clock.advance(100);
    expect([heard, server.connections.size]).toEqual([['x'], 1]);
  });

  it('ends the connection: what was not asked for yet is asked for on the next one at once', async () => {
    const { client, clock } = serverAndClient();
    const rooms = ['public:r', 'public:other'].map((name) => client.room(name));
    once(rooms[0] as never, 'joining', () => client.disconnect());
    for (const room of rooms) void room.join();
    client.connect();
    await clock.advance(100);
    expect([client.state.phase, ...rooms.map(({ state }) => state)]).toEqual(['idle', 'away', 'away']);
    client.connect();
    await clock.advance(100);
    expect(rooms.map(({ state }) => state)).toEqual(['joined', 'joined']);
  });
});

describe('a listener of a room that connect names', () => {
  async function inTwoRooms() {
    const world = await inRoom();
    const other = world.client.room('public:other');
    void other.join();
    await world.clock.advance(20);
    return { ...world, other };
  }
  const named = (received: { type: string; [field: string]: unknown }[]) =>
    received.filter(({ type }) => type === 'connect').map(({ resume }) => (resume as unknown[]).length);

  it('ends the connection: the next one names every room again', async () => {
    const { server, client, clock, room, other } = await inTwoRooms();
    once(room, 'joining', () => client.disconnect());
    server.breakConnections();
    await clock.advance(1000);
    expect([client.state.phase, room.state, other.state]).toEqual(['idle', 'away', 'away']);
    client.connect();
    await clock.advance(100);
    expect([room.state, other.state, named(server.received).at(-1)]).toEqual(['joined', 'joined', 2]);
  });

  it('leaves another one, which is not joined behind its back', async () => {
    const { server, clock, room, other } = await inTwoRooms();
    once(room, 'joining', () => void other.leave());
    server.breakConnections();
    await clock.advance(1000);
    expect([room.state, other.state]).toEqual(['joined', 'out']);
    expect([...server.connections].map(({ rooms }) => [...rooms.keys()])).toEqual([['public:r']]);
  });
});

describe('a listener of a room that changes its mind', () => {
  it('leaves as it is being joined: the server does not have it in', async () => {
    const { server, client, clock } = serverAndClient();
    client.connect();
    await clock.advance(20);
    const room = client.room('public:r');
    once(room, 'joining', () => void room.leave());
    await Promise.all([expect(room.join()).rejects.toMatchObject({ code: 'left' }), clock.advance(100)]);
    expect([room.state, ...[...server.connections].map(({ rooms }) => rooms.size)]).toEqual(['out', 0]);
  });

  it('joins again as it is being left', async () => {
    const { server, clock, room, heard } = await inRoom();
    once(room, 'leaving', () => void room.join());
    void room.leave();
    await clock.advance(100);
    server.publish('public:r', 'x');
    await clock.advance(100);
    expect([room.state, heard]).toEqual(['joined', ['x']]);
  });

  it('leaves as its join is put off: it is not asked for again', async () => {
    const { server, client, clock } = serverAndClient();
    server.refusals.set('subscribe', { code: 114, error: 'unavailable' });
    client.connect();
    await clock.advance(20);
    const room = client.room('public:r');
    void room.join();
    once(room, 'away', () => void room.leave());
    await clock.advance(10_000);
    expect([room.state, server.received.filter(({ type }) => type === 'subscribe').length]).toEqual(['out', 1]);
  });

  it('joins again as it is put out: that is answered for itself', async () => {
    const { server, clock, room } = await inRoom();
    let again: Promise<unknown> = Promise.resolve();
    once(room, 'out', () => {
      again = room.join();
    });
    for (const connection of server.connections) {
      connection.rooms.delete('public:r');
      connection.say({ type: 'unsubscribed', id: null, room: 'public:r', code: 103, reason: 'permission_denied' });
    }
    await clock.advance(100);
    expect(await again).toMatchObject({ position: { offset: 0 } });
    expect(room.state).toBe('joined');
  });

  it('wants to know who is there as it is being joined: no wait of the first join ends the connection', async () => {
    const { client, clock } = serverAndClient();
    const lost: unknown[] = [];
    client.on('lost', (loss) => lost.push(loss));
    client.connect();
    await clock.advance(20);
    const room = client.room('public:r');
    once(room, 'joining', () => void room.join({ presence: true }));
    void room.join();
    await clock.advance(60_000);
    expect([room.state, room.presence?.total, lost]).toEqual(['joined', 1, []]);
  });
});

describe('a listener that ends things', () => {
  it('by leaving as it hears of a gap: it is not told that it has joined', async () => {
    const { server, clock, room, heard } = await inRoom({ entriesMax: 3 });
    const joined: unknown[] = [];
    room.on('joined', (told) => joined.push(told));
    room.on('gap', () => void room.leave());
    server.breakConnections();
    for (let n = 1; n <= 6; n++) server.publish('public:r', n);
    await clock.advance(1000);
    expect([room.state, joined, heard]).toEqual(['out', [], []]);
    expect([...server.connections].map(({ rooms }) => rooms.size)).toEqual([0]);
  });

  it('by disconnecting as the server speaks again: what it says is not listened to any more', async () => {
    const { server, client, clock } = await inRoom();
    const refused: unknown[] = [];
    client.on('refused', (frame) => refused.push(frame));
    server.partition();
    for (const connection of server.connections) {
      connection.say({ type: 'error', id: null, code: 108, error: 'rate_limited', message: '' });
    }
    await clock.until(() => client.state.phase === 'degraded');
    client.on('state', ({ phase }) => phase === 'open' && client.disconnect());
    server.heal();
    expect([refused, client.state.phase]).toEqual([[], 'idle']);
    server.crash();
    await clock.advance(1000);
    expect(clock.pending).toBe(0);
  });
});

describe('a listener that closes the client', () => {
  // K06: a handler closes the client.
  it.each(['lost', 'state', 'hello'] as const)('when it hears %s: it stays closed', async (name) => {
    const { server, client, clock, room } = await inRoom();
    const waiting = client.room('public:other');
    server.refusals.set('subscribe', { code: 114, error: 'unavailable' });
    const joined = waiting.join();
    await clock.advance(20);
    client.on(name as keyof ClientEvents, () => client.close());
    server.breakConnections();
    await clock.advance(1000);
    await expect(joined).rejects.toMatchObject({ code: 'closed' });
    await expect(room.publish('late')).rejects.toMatchObject({ code: 'closed' });
    await expect(room.join()).rejects.toMatchObject({ code: 'closed' });
    expect([client.state.phase, room.state, waiting.state]).toEqual(['idle', 'out', 'out']);
    client.connect();
    server.crash();
    await clock.advance(1000);
    expect([clock.pending, server.network.listening, server.network.wires.size]).toEqual([0, 0, 0]);
  });

  // K06.
  it('in the midst of what was missed: nothing more is told, and nothing is left', async () => {
    const { server, client, clock, room, heard } = await inRoom();
    room.on('message', ({ data }) => data === 2 && client.close());
    server.breakConnections();
    for (let n = 1; n <= 6; n++) server.publish('public:r', n);
    await clock.advance(1000);
    expect([heard, client.state.phase, room.state]).toEqual([[1, 2], 'idle', 'out']);
    server.crash();
    await clock.advance(1000);
    expect([clock.pending, server.network.listening, server.network.wires.size]).toEqual([0, 0, 0]);
  });
});
