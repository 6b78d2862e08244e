// `RoomkeeperClient` against the fake server: rooms, recovery, outbox, requests.
// It must never look behind the client's public face.

import { describe, expect, it, vi } from 'vitest';
import { RequestError } from '../src/index.js';
import { heardIn, inRoom, serverAndClient } from './world.js';

describe('a room', () => {
  it('is the same object by its name', () => {
    const { client } = serverAndClient();
    expect(client.room('public:r')).toBe(client.room('public:r'));
  });

  it('hears what is published, in order', async () => {
    const { server, clock, heard, room } = await inRoom();
    for (let n = 1; n <= 5; n++) server.publish('public:r', n);
    await clock.advance(10);
    expect(heard).toEqual([1, 2, 3, 4, 5]);
    expect(room.position).toMatchObject({ offset: 5 });
  });

  it('that is refused says so, and is out', async () => {
    const { server, client, clock } = serverAndClient();
    server.forbidden.add('public:secret');
    const room = client.room('public:secret');
    const left = vi.fn();
    room.on('left', left);
    client.connect();
    const joined = room.join();
    await clock.advance(20);
    await expect(joined).rejects.toMatchObject({ code: 'refused', refusal: { code: 103 } });
    expect(left).toHaveBeenCalledWith({ code: 103, reason: 'permission_denied' });
    expect(room.state).toBe('out');
  });

  it('that is left hears nothing any more, and its promise is settled', async () => {
    const { server, client, clock, heard, room } = await inRoom();
    const left = room.leave();
    server.publish('public:r', 'late');
    await clock.advance(20);
    await left;
    expect([heard, room.state]).toEqual([[], 'out']);
    const other = client.room('public:other');
    const joined = other.join();
    void other.leave();
    await expect(joined).rejects.toMatchObject({ code: 'left' });
  });

  it('joined, left and joined again at once is joined once', async () => {
    const { server, client, clock } = serverAndClient();
    client.connect();
    await clock.advance(20);
    const room = client.room('public:r');
    const heard = heardIn(room);
    void room.join();
    void room.leave();
    const joined = room.join();
    await clock.advance(20);
    await joined;
    server.publish('public:r', 'once');
    await clock.advance(20);
    expect([heard, room.state]).toEqual([['once'], 'joined']);
  });

  it('left while its resume is under way is not joined behind the back of the application', async () => {
    const { server, client, clock, room, heard } = await inRoom();
    server.breakConnections();
    await clock.until(() => server.received.some(({ resume }) => (resume as unknown[] | undefined)?.length === 1));
    void room.leave();
    await clock.advance(100);
    expect(client.state.phase).toBe('open');
    expect([...server.connections].map(({ rooms }) => rooms.size)).toEqual([0]);
    const joined = room.join();
    await clock.advance(20);
    await joined;
    server.publish('public:r', 'x');
    await clock.advance(20);
    expect(heard).toEqual(['x']);
  });
});

describe('recovery', () => {
  it('brings what was missed, with one connect for all rooms', async () => {
    const { server, client, clock, heard } = await inRoom();
    const other = client.room('public:other');
    const heardThere = heardIn(other);
    void other.join();
    await clock.advance(20);
    server.publish('public:r', 1);
    await clock.advance(5);
    server.breakConnections();
    for (let n = 2; n <= 250; n++) server.publish('public:r', n);
    server.publish('public:other', 'x');
    await clock.advance(1000);
    expect(heard).toEqual(Array.from({ length: 250 }, (_, n) => n + 1));
    expect(heardThere).toEqual(['x']);
    const connects = server.received.filter(({ type }) => type === 'connect');
    expect(connects.map(({ resume }) => (resume as unknown[]).length)).toEqual([2]);
    expect(server.received.filter(({ type }) => type === 'subscribe')).toHaveLength(2);
  });

  it('tells what the log no longer has as a gap', async () => {
    const { server, clock, heard, room } = await inRoom({ entriesMax: 3 });
    const gaps: unknown[] = [];
    room.on('gap', ({ from, to, reason }) => gaps.push([from, to, reason]));
    server.breakConnections();
    for (let n = 1; n <= 10; n++) server.publish('public:r', n);
    await clock.advance(1000);
    expect([gaps, heard]).toEqual([[[1, 7, 'retention']], [8, 9, 10]]);
  });

  it('tells a log that began anew', async () => {
    const { server, clock, heard, room } = await inRoom();
    const gaps: unknown[] = [];
    room.on('gap', ({ reason }) => gaps.push(reason));
    server.publish('public:r', 'old');
    await clock.advance(10);
    server.crash();
    server.restart();
    server.publish('public:r', 'new');
    await clock.advance(1000);
    expect([gaps, heard]).toEqual([['epoch_changed'], ['old', 'new']]);
  });

  it('goes on where a listener ended the connection', async () => {
    const { server, client, clock, room } = await inRoom();
    const heard: unknown[] = [];
    room.on('message', ({ data }) => {
      heard.push(data);
      if (data === 3) client.disconnect();
    });
    server.breakConnections();
    for (let n = 1; n <= 6; n++) server.publish('public:r', n);
    await clock.advance(1000);
    expect([heard, client.state.phase]).toEqual([[1, 2, 3], 'idle']);
    client.connect();
    await clock.advance(1000);
    expect(heard).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('does not go on in a room that a listener left', async () => {
    const { server, clock, room, heard } = await inRoom();
    room.on('message', ({ data }) => {
      if (data === 2) void room.leave();
    });
    server.breakConnections();
    for (let n = 1; n <= 6; n++) server.publish('public:r', n);
    await clock.advance(1000);
    expect(heard).toEqual([1, 2]);
  });

  // K03.
  it('comes back when the server said, and not earlier, whatever wakes it', async () => {
    const { server, client, clock } = await inRoom();
    server.close(1012, 'restart', 5000);
    await clock.advance(100);
    server.network.wake('online');
    server.network.wake('visible');
    await clock.advance(4800);
    expect(client.state.phase).toBe('reconnecting');
    await clock.advance(200);
    expect(client.state.phase).toBe('open');
  });

  it('comes back at once when the network does', async () => {
    const { server, client, clock } = await inRoom();
    server.crash();
    await clock.until(() => client.state.phase === 'failed' && server.clock.now() > 30_000);
    server.restart();
    const before = clock.now();
    server.network.wake('online');
    await clock.advance(10);
    expect(client.state.phase).toBe('open');
    expect(clock.now() - before).toBe(10);
  });

  it('ends in idle where a listener hears of the loss and ends it', async () => {
    const { server, client, clock } = await inRoom();
    const phases: string[] = [];
    client.on('lost', () => client.disconnect());
    client.on('state', ({ phase }) => phases.push(phase));
    server.breakConnections();
    await clock.advance(10_000);
    expect([phases, client.state.phase]).toEqual([['reconnecting', 'idle'], 'idle']);
  });

  // K03: a stop stays one.
  it('stays away after a stop', async () => {
    const { server, client, clock } = await inRoom();
    server.close(3505, 'session_replaced');
    await clock.advance(3_600_000);
    expect(client.state).toEqual({ phase: 'fallback', reason: 'closed with 3505 session_replaced' });
    expect(server.connections.size).toBe(0);
  });
});

describe('the outbox', () => {
  // K04 and K05: one message, and one answer.
  it('publishes once, however often the connection breaks before the answer', async () => {
    const { server, clock, room, heard } = await inRoom();
    const published = room.publish('once', { msgId: 'm-1' });
    await clock.advance(1);
    server.breakConnections();
    await clock.advance(500);
    server.breakConnections();
    await clock.advance(1000);
    expect(await published).toMatchObject({ msg_id: 'm-1', offset: 1 });
    expect(heard).toEqual(['once']);
    expect(server.room('public:r').offset).toBe(1);
  });

  // K04.
  it('keeps the order of publishes over a reconnect', async () => {
    const { server, client, clock, room, heard } = await inRoom();
    server.breakConnections();
    const all = Array.from({ length: 20 }, (_, n) => room.publish(n));
    client.on('hello', () => void room.publish('from a listener'));
    await clock.advance(1000);
    await Promise.all(all);
    expect(heard).toEqual([...Array.from({ length: 20 }, (_, n) => n), 'from a listener']);
    expect(client.outboxSize).toBe(0);
  });

  // K04.
  it('is bounded by number and by size', async () => {
    const { client } = serverAndClient({}, { outboxMax: 2, outboxCharactersMax: 1000 });
    const room = client.room('public:r');
    void room.publish(1);
    void room.publish(2);
    await expect(room.publish(3)).rejects.toMatchObject({ code: 'outbox_full' });
    await expect(
      serverAndClient({}, { outboxCharactersMax: 100 }).client.room('public:r').publish('x'.repeat(99)),
    ).rejects.toMatchObject({ code: 'outbox_full' });
    client.close();
  });

  it('says of each publish at the end whether it may have happened', async () => {
    const { server, client, clock, room } = await inRoom();
    server.partition();
    const sent = room.publish(1, { msgId: 'sent' });
    server.breakConnections();
    const kept = room.publish(2, { msgId: 'kept' });
    client.close();
    await expect(sent).rejects.toMatchObject({ code: 'unanswered', msgId: 'sent' });
    await expect(kept).rejects.toMatchObject({ code: 'not_sent', msgId: 'kept' });
    await clock.advance(100_000);
  });

  it('knows the places of its own messages, however many acknowledgements come too late', {
    timeout: 60_000,
  }, async () => {
    const { server, client, clock, room, heard } = await inRoom({}, { publishTimeoutMs: 5 });
    const lost: unknown[] = [];
    client.on('lost', (loss) => lost.push(loss));
    server.delay(10);
    for (let n = 0; n < 1100; n++) {
      const published = room.publish(n, { echo: false });
      await clock.advance(30);
      await expect(published).rejects.toMatchObject({ code: 'unanswered' });
    }
    server.publish('public:r', 'of another');
    await clock.advance(30);
    expect([heard, lost]).toEqual([['of another'], []]);
  });

  it('refuses what is no JSON', async () => {
    const { room } = await inRoom();
    const ring: Record<string, unknown> = {};
    ring.ring = ring;
    await expect(room.publish(ring)).rejects.toBeInstanceOf(TypeError);
    await expect(room.publish(10n)).rejects.toBeInstanceOf(TypeError);
  });
});

describe('requests', () => {
  it('are answered', async () => {
    const { server, client, clock, room } = await inRoom();
    server.publish('public:r', 'x');
    const all = Promise.all([client.ping(), client.status(), room.history({ limit: 1 }), room.members()]);
    await clock.advance(20);
    const [, status, history, members] = await all;
    expect(status.rooms).toEqual(['public:r']);
    expect(history.messages).toHaveLength(1);
    expect(members.total).toBe(1);
  });

  it('fail without a connection, with its loss, and when nobody answers', async () => {
    const { server, client, clock } = serverAndClient({}, { requestTimeoutMs: 1000 });
    await expect(client.status()).rejects.toMatchObject({ code: 'disconnected' });
    client.connect();
    await clock.advance(20);
    const lost = client.status();
    server.breakConnections();
    await expect(lost).rejects.toMatchObject({ code: 'disconnected' });
    await clock.advance(1000);
    server.partition();
    const silent = client.status();
    await clock.advance(1000);
    await expect(silent).rejects.toMatchObject({ code: 'timed_out' });
  });

  it('are as many as may be, and a room can be left all the same', async () => {
    const { server, client, clock, room, heard } = await inRoom();
    const open = Array.from({ length: 1024 }, () => client.status());
    await expect(client.status()).rejects.toMatchObject({ code: 'too_many' });
    const left = room.leave();
    const joined = room.join();
    await clock.advance(20);
    await Promise.all([left, joined, ...open]);
    server.publish('public:r', 'x');
    await clock.advance(20);
    expect([room.state, heard]).toEqual(['joined', ['x']]);
    await Promise.all([room.leave(), clock.advance(20)]);
    expect([...server.connections].map(({ rooms }) => rooms.size)).toEqual([0]);
  });

  it('of a host of its own, too', async () => {
    const { server, client, clock } = serverAndClient();
    client.connect();
    await clock.advance(20);
    const refused = client.request({ type: 'greet' });
    await clock.advance(20);
    await expect(refused).rejects.toBeInstanceOf(RequestError);
    const answered = client.request({ type: 'greet' });
    server.refusals.set('greet', { code: 108, error: 'rate_limited' });
    const id = Number(server.received.at(-1)?.id) + 1;
    for (const connection of server.connections) connection.say({ type: 'greeting', id, data: 'hello' });
    await clock.advance(20);
    expect(await answered).toMatchObject({ type: 'greeting', data: 'hello' });
  });
});

describe('close', () => {
  // K05: what comes after the end.
  it('settles everything and leaves no timer', async () => {
    const { server, client, clock, room } = await inRoom();
    server.partition();
    const open = [room.publish(1), client.status(), client.room('public:o').join()];
    client.close();
    const ends = await Promise.allSettled(open);
    expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    server.crash();
    await clock.advance(3_600_000);
    expect([clock.pending, server.network.listening, server.network.wires.size]).toEqual([0, 0, 0]);
    client.connect();
    expect(client.state.phase).toBe('idle');
  });
});
