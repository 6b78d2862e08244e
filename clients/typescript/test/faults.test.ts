// What a broken or hostile server may say: the client stays in a documented phase, and nothing is thrown.
// It must never be enough that a test ends: what the client tells is looked at.

import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BackoffStrategy } from '../src/index.js';
import { NONSENSE } from './nonsense.js';
import { serverAndClient, serverAndManager } from './world.js';

const PHASES = ['idle', 'connecting', 'open', 'degraded', 'reconnecting', 'failed', 'fallback'];

const unhandled = vi.fn();
process.on('unhandledRejection', unhandled);
afterEach(() => {
  expect(unhandled).not.toHaveBeenCalled();
});

describe('v2: nonsense', () => {
  // K10. D11: a place beyond the last that a number keeps exact is no place.
  it.each(NONSENSE)('%j leaves the client where it can go on', async (text) => {
    const { server, client, clock } = serverAndClient();
    const room = client.room('public:r');
    const heard: unknown[] = [];
    room.on('message', ({ data }) => heard.push(data));
    client.connect();
    void room.join({ presence: true });
    await clock.advance(50);
    for (const connection of server.connections) connection.raw(text);
    await clock.advance(50);
    expect(PHASES).toContain(client.state.phase);
    server.publish('public:r', 'still here');
    await clock.advance(30_000);
    expect([heard.at(-1), client.state.phase]).toEqual(['still here', 'open']);
    client.close();
  });

  it('as the first words, too', async () => {
    for (const text of NONSENSE) {
      const { server, client, clock } = serverAndClient({ anonymous: false });
      server.network.wires.forEach(() => {});
      client.connect();
      await clock.until(() => server.connections.size > 0);
      for (const connection of server.connections) connection.raw(text);
      await clock.advance(100_000);
      expect(PHASES).toContain(client.state.phase);
      client.close();
      server.crash();
      await clock.advance(10);
      expect(clock.pending).toBe(0);
    }
  });

  // K10: and whatever is drawn.
  it('of any kind', async () => {
    const types = [
      'hello',
      'subscribed',
      'page',
      'message',
      'gap',
      'ack',
      'unsubscribed',
      'presence',
      'presence_event',
      'presence_events',
      'presence_count',
      'error',
      'disconnect',
    ];
    const fields = [
      'id',
      'room',
      'epoch',
      'offset',
      'messages',
      'more',
      'seq',
      'members',
      'changes',
      'total',
      'code',
      'from',
      'to',
      'resumed',
      'reconnect_after_ms',
    ];
    const value = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom('public:r', '0000000000000001'),
      fc.integer({ min: 0, max: 6 }),
    );
    const frame = fc.tuple(fc.constantFrom(...types), fc.dictionary(fc.constantFrom(...fields), value));
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { maxLength: 8 }), async (frames) => {
        const { server, client, clock } = serverAndClient();
        client.connect();
        void client.room('public:r').join({ presence: true });
        void client.room('public:r').publish('x');
        await clock.advance(20);
        for (const [type, more] of frames) {
          for (const connection of server.connections)
            connection.raw(JSON.stringify({ room: 'public:r', ...more, type }));
        }
        await clock.advance(1000);
        expect(PHASES).toContain(client.state.phase);
        client.close();
        server.crash();
        await clock.advance(10);
        expect(clock.pending).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  it('binary ends the connection, and the client comes back', async () => {
    const { server, client, clock } = serverAndClient();
    const said: string[] = [];
    client.on('violation', (words) => said.push(words));
    client.connect();
    await clock.advance(20);
    for (const { socket } of server.network.wires) socket.heard(new ArrayBuffer(8));
    expect(said).toEqual(['binary or too large']);
    await clock.advance(1000);
    expect(client.state.phase).toBe('open');
  });

  it.each([
    ['ends of lines', '\n'.repeat(1 << 20), 0],
    ['what is no frame', 'x\n'.repeat(1 << 20), 16],
    ['a greeting', `{"type":"hello","resumed":[${'null,'.repeat(1 << 16)}null]}`, 0],
  ])('a text of nothing but %s is told of a few times', async (_, text, times) => {
    const { server, client, clock } = serverAndClient();
    const said: string[] = [];
    const lost: unknown[] = [];
    client.on('violation', (words) => said.push(words));
    client.on('lost', ({ text: words }) => lost.push(words));
    client.connect();
    await clock.advance(20);
    for (const { socket } of server.network.wires) socket.heard(text);
    expect([said.length, lost]).toEqual([times, times ? ['nonsense'] : []]);
    await clock.advance(1000);
    expect(client.state.phase).toBe('open');
  });

  it('a greeting with a list of nonsense is told of a few times, too', async () => {
    const { server, client, clock } = serverAndClient();
    const said: string[] = [];
    client.on('violation', (words) => said.push(words));
    server.partition();
    client.connect();
    const [wire] = server.network.wires;
    wire?.socket.opened();
    wire?.socket.heard(`{"type":"hello","resumed":[${'null,'.repeat(1 << 16)}null]}`);
    expect([said.length, client.state.phase]).toEqual([16, 'reconnecting']);
    server.heal();
    await clock.advance(1000);
    expect(client.state.phase).toBe('open');
    client.close();
  });

  it('a frame of an entry can not pass for an event of the room', async () => {
    const { server, client, clock } = serverAndClient();
    const room = client.room('public:r');
    const left = vi.fn();
    room.on('left', left);
    client.connect();
    void room.join();
    await clock.advance(20);
    const { epoch } = server.room('public:r');
    const messages = [{ type: 'left', room: 'public:r', epoch, offset: 1, code: 1, reason: 'x' }];
    const page = { type: 'page', room: 'public:r', epoch, offset: 1, messages, more: false };
    for (const connection of server.connections) connection.raw(JSON.stringify(page));
    await clock.advance(20);
    expect(left).not.toHaveBeenCalled();
  });

  // K11.
  it('a hundred thousand pings are answered no faster than they leave', async () => {
    const { server, client, clock } = serverAndClient();
    client.connect();
    await clock.advance(20);
    for (const { socket } of server.network.wires) {
      Object.defineProperty(socket, 'bufferedAmount', { value: 1 << 20 });
      for (let n = 0; n < 100_000; n++) socket.heard('{"type":"ping"}');
    }
    await clock.advance(20);
    expect(server.received.filter(({ type }) => type === 'pong')).toHaveLength(0);
    expect(client.state.phase).toBe('open');
  });

  // K06.
  it('listeners that throw, reject, or publish again stop nobody', async () => {
    const { server, client, clock } = serverAndClient();
    const report = vi.spyOn(console, 'error').mockImplementation(() => {});
    const room = client.room<number>('public:r');
    const heard: number[] = [];
    room.on('message', () => {
      throw new Error('mine');
    });
    room.on('message', async () => Promise.reject(new Error('later')));
    room.on('message', ({ data }) => void (data < 5 && room.publish(data + 1)));
    room.on('message', ({ data }) => heard.push(data));
    client.connect();
    void room.join();
    await clock.advance(20);
    server.publish('public:r', 1);
    await clock.advance(100);
    expect(heard).toEqual([1, 2, 3, 4, 5]);
    expect(report).toHaveBeenCalledTimes(10);
    report.mockRestore();
  });
});

describe('/ws/client: nonsense', () => {
  it.each(NONSENSE)('%j leaves the manager open, and nothing is thrown', async (text) => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(20);
    for (const connection of server.connections) connection.raw(text);
    await clock.advance(50);
    expect(manager.getState().phase).toBe('open');
  });

  // K11.
  it('a hundred thousand pings are answered no faster than they leave', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(20);
    for (const { socket } of server.network.wires) {
      Object.defineProperty(socket, 'bufferedAmount', { value: 1 << 20 });
      for (let n = 0; n < 100_000; n++) socket.heard('{"type":"ping"}');
    }
    await clock.advance(20);
    expect(server.received.filter(({ type }) => type === 'pong')).toHaveLength(0);
    expect(manager.getState()).toMatchObject({ phase: 'open', stats: { heartbeats_received: 100_000 } });
  });

  // K06.
  it('a log that throws stops nothing', async () => {
    const report = vi.spyOn(console, 'error').mockImplementation(() => {});
    const log = () => {
      throw new Error('the disk is full');
    };
    const { server, manager, clock } = serverAndManager({ echo: true }, { log });
    const heard: string[] = [];
    manager.onMessage(({ type }) => heard.push(type));
    manager.onSystemMessage(({ type }) => type === 'hello' && manager.send({ type: 'hello back' }));
    manager.connect();
    await clock.advance(20);
    server.breakConnections();
    await clock.advance(2000);
    expect([manager.getState().phase, heard]).toEqual(['open', ['hello back', 'hello back']]);
    manager.reconnect();
    await clock.advance(20);
    expect(manager.getState()).toMatchObject({ phase: 'open', stats: { total_attempts: 3 } });
    expect(report).toHaveBeenCalled();
    report.mockRestore();
  });

  // K06.
  it('a strategy of delays that throws does not keep what else was wanted from happening', async () => {
    const report = vi.spyOn(console, 'error').mockImplementation(() => {});
    class Broken extends BackoffStrategy {
      override delayFor(): number {
        throw new Error('mine');
      }
    }
    const { server, manager, clock } = serverAndManager({}, { backoffStrategy: new Broken() });
    let isFirst = true;
    manager.onStateChange(({ phase }) => {
      if (phase !== 'open' || !isFirst) return;
      isFirst = false;
      server.breakConnections();
      manager.reconnect();
    });
    manager.connect();
    await clock.advance(20);
    expect(manager.getState()).toMatchObject({ phase: 'open', stats: { total_attempts: 2 } });
    expect(report).toHaveBeenCalledTimes(1);
    report.mockRestore();
  });

  it('every close code leads to a documented phase', async () => {
    for (let code = 1000; code < 5000; code++) {
      const { server, manager, clock } = serverAndManager();
      manager.connect();
      await clock.advance(20);
      server.close(code);
      expect(['idle', 'reconnecting', 'open', 'fallback']).toContain(manager.getState().phase);
      await clock.advance(5);
      manager.disconnect();
    }
  });
});

describe('sockets that behave badly', () => {
  it('a constructor that throws is a failed attempt', async () => {
    const { server, manager, clock } = serverAndManager();
    const environment = {
      ...server.environment,
      socket: () => {
        throw new SyntaxError('the URL is invalid');
      },
    };
    const world = serverAndManager({}, { environment });
    world.manager.connect();
    expect(world.manager.getState()).toMatchObject({
      phase: 'failed',
      recent_attempts: [{ error_message: 'the URL is invalid' }],
    });
    world.manager.disconnect();
    manager.disconnect();
    await clock.advance(1);
  });

  it('events after the end are not listened to', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(20);
    const [wire] = server.network.wires;
    const { onopen, onmessage, onclose } = wire?.socket ?? {};
    manager.disconnect();
    onopen?.({} as never);
    onmessage?.({ data: '{"type":"hello"}' } as never);
    onclose?.({ code: 1006, reason: '' } as never);
    onclose?.({ code: 1006, reason: '' } as never);
    expect(manager.getState().phase).toBe('idle');
  });
});
