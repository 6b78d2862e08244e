// Who is in a room, as `RoomkeeperClient` follows it against the fake server.
// It must never look behind the client's public face.

import { describe, expect, it } from 'vitest';
import { inRoom, serverAndClient } from './world.js';

describe('presence', () => {
  it('is followed, with updates, and over a reconnect', async () => {
    const { server, client, clock } = serverAndClient({}, { token: 'ann' });
    const room = client.room('public:r');
    client.connect();
    void room.join({ presence: true });
    await clock.advance(30);
    expect([...(room.presence?.members.keys() ?? [])]).toEqual(['ann']);
    server.come(server.room('public:r'), 'bob');
    void room.updatePresence({ mood: 'fine' });
    await clock.advance(30);
    expect(room.presence?.total).toBe(2);
    expect(room.presence?.members.get('ann')?.data).toEqual({ mood: 'fine' });
    server.breakConnections();
    expect(room.presence).toBeNull();
    server.go(server.room('public:r'), 'bob');
    await clock.advance(1000);
    expect([...(room.presence?.members.keys() ?? [])]).toEqual(['ann']);
  });

  it('is asked for again when a list is older than what was heard', async () => {
    const { server, client, clock } = serverAndClient({}, { token: 'ann' });
    const room = client.room('public:r');
    client.connect();
    void room.join({ presence: true });
    await clock.until(() => server.received.some(({ type }) => type === 'presence'));
    // The list that is on its way does not know of bob.
    const old = {
      type: 'presence',
      id: null,
      room: 'public:r',
      seq: 1,
      total: 1,
      members: [{ user_id: 'ann', data: null }],
    };
    const join = { event: 'join', user_id: 'bob', data: null };
    const event = { type: 'presence_event', room: 'public:r', seq: 9, total: 2, ...join };
    for (const connection of server.connections) {
      connection.raw(JSON.stringify(event));
      connection.raw(JSON.stringify(old));
    }
    await clock.advance(0);
    await clock.advance(2);
    const asked = () => server.received.filter(({ type }) => type === 'presence').length;
    expect([room.presence, asked()]).toEqual([null, 1]);
    // A server that has no other is not asked without end.
    await clock.advance(20_000);
    expect([room.presence, asked()]).toEqual([null, 10]);
    server.room('public:r').seq = 9;
    await clock.advance(2000);
    expect(room.presence?.total).toBe(1);
  });

  it('can be asked for later, from where the room stands', async () => {
    const { server, clock, room, heard } = await inRoom();
    server.publish('public:r', 1);
    await clock.advance(10);
    void room.join({ presence: true });
    server.publish('public:r', 2);
    await clock.advance(30);
    server.publish('public:r', 3);
    await clock.advance(30);
    expect(heard).toEqual([1, 2, 3]);
    expect(room.presence?.total).toBe(1);
  });

  it.each([false, true])(
    'can be asked for while hello is on its way, with something to publish: %s',
    async (publishes) => {
      const { server, client, clock, room, heard } = await inRoom();
      const left: unknown[] = [];
      const violations: unknown[] = [];
      room.on('left', (told) => left.push(told));
      client.on('violation', (words) => violations.push(words));
      server.breakConnections();
      const published = publishes ? room.publish('waiting') : null;
      server.publish('public:r', 'missed');
      await clock.until(() => server.received.some(({ resume }) => (resume as unknown[] | undefined)?.length === 1));
      void room.join({ presence: true });
      await clock.advance(100);
      server.publish('public:r', 'live');
      await clock.advance(100);
      expect([room.state, left, violations, room.presence?.total]).toEqual(['joined', [], [], 1]);
      expect(heard).toEqual(publishes ? ['missed', 'waiting', 'live'] : ['missed', 'live']);
      if (published) expect(await published).toMatchObject({ offset: 2 });
    },
  );

  it('tells a change once, and none that the list holds already', async () => {
    const { server, clock, client } = serverAndClient({}, { token: 'ann' });
    const room = client.room('public:r');
    const told: unknown[] = [];
    room.on('presenceChange', (frame) => told.push(frame.type === 'presence_event' && [frame.event, frame.seq]));
    client.connect();
    void room.join({ presence: true });
    await clock.advance(30);
    told.length = 0;
    const { seq } = server.room('public:r');
    const join = { event: 'join', user_id: 'bob', data: null };
    const [connection] = server.connections;
    for (const at of [seq - 1, seq, seq + 1, seq + 1, seq]) {
      const event = { type: 'presence_event', room: 'public:r', seq: at, total: 2, ...join };
      connection?.raw(JSON.stringify(event));
    }
    await clock.advance(10);
    expect(told).toEqual([['join', seq + 1]]);
    expect([...(room.presence?.members.keys() ?? [])]).toEqual(['ann', 'bob']);
  });

  it('is told no further by a listener that has left', async () => {
    const { server, clock, client } = serverAndClient({}, { token: 'ann' });
    const room = client.room('public:r');
    client.connect();
    void room.join({ presence: true });
    await clock.advance(30);
    const told: unknown[] = [];
    room.on('presence', () => void room.leave());
    room.on('presenceChange', (frame) => told.push(frame));
    server.come(server.room('public:r'), 'bob');
    await clock.advance(30);
    expect([told, room.presence, room.state]).toEqual([[], null, 'out']);
  });

  it('is asked for again when the server has refused it for the moment', async () => {
    const { server, clock, client } = serverAndClient({}, { token: 'ann' });
    server.refusals.set('presence', { code: 114, error: 'unavailable', retry_after_ms: 700 });
    const room = client.room('public:r');
    client.connect();
    void room.join({ presence: true });
    await clock.advance(650);
    expect([room.state, room.presence]).toEqual(['joined', null]);
    server.refusals.clear();
    await clock.advance(100);
    expect(room.presence?.total).toBe(1);
  });
});
