// What a broken or hostile server may say: the client stays in a documented phase, and nothing is thrown.
// It must never be enough that a test ends: what the client tells is looked at.

import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { serverAndClient, serverAndManager } from './world.js';

const PHASES = ['idle', 'connecting', 'open', 'degraded', 'reconnecting', 'failed', 'fallback'];
const NONSENSE = [
  '',
  ' ',
  '{',
  '[]',
  '[[[[',
  'null',
  '1',
  '"hello"',
  'true',
  '{}',
  '{"type":1}',
  '{"type":null}',
  '{"type":{}}',
  '\u0000',
  '\n\n\n',
  '{"type":"__proto__"}',
  '{"type":"constructor"}',
  '{"type":"toString"}',
  '{"type":"hello"',
  `${'['.repeat(100_000)}`,
  '{"type":"hello"}',
  '{"type":"hello","features":{},"rooms":7,"resumed":"x","session":4,"heartbeat_interval_ms":"soon"}',
  '{"type":"hello","heartbeat_interval_ms":-1}',
  '{"type":"hello","heartbeat_interval_ms":1e308}',
  '{"type":"hello","resumed":[null,1,{}]}',
  '{"type":"message"}',
  '{"type":"message","room":"public:r"}',
  '{"type":"message","room":"public:r","epoch":1,"offset":1}',
  '{"type":"message","room":"public:r","epoch":"x","offset":-1}',
  '{"type":"message","room":"public:r","epoch":"x","offset":1.5}',
  '{"type":"message","room":"public:r","epoch":"x","offset":1e300}',
  '{"type":"message","room":"public:r","epoch":"x","offset":"1"}',
  '{"type":"message","room":{"a":1},"offset":1}',
  '{"type":"tombstone","room":"public:r","offset":"x"}',
  '{"type":"subscribed","id":1,"room":"public:r"}',
  '{"type":"subscribed","id":null,"room":"public:r","epoch":"a","offset":1,"messages":[]}',
  '{"type":"page","room":"public:r","epoch":"0000000000000001","offset":3,"messages":{},"more":false}',
  '{"type":"page","room":"public:r","epoch":"0000000000000001","offset":0,"messages":[null,7,"x"],"more":false}',
  '{"type":"gap","room":"public:r","epoch":"a","from":"x","to":2,"reason":"retention"}',
  '{"type":"gap","room":"public:r"}',
  '{"type":"ack","id":1}',
  '{"type":"ack","id":999999,"room":"public:r","epoch":"a","offset":1}',
  '{"type":"ack","id":{},"offset":{}}',
  '{"type":"unsubscribed"}',
  '{"type":"unsubscribed","room":"nowhere:x","code":"x"}',
  '{"type":"presence","room":"public:r","members":7}',
  '{"type":"presence","room":"public:r","seq":1,"total":1,"members":[null]}',
  '{"type":"presence_event","room":"public:r","seq":"x"}',
  '{"type":"presence_events","room":"public:r","from":1,"seq":2,"total":1,"changes":7}',
  '{"type":"presence_events","room":"public:r","from":1,"seq":2,"total":1,"changes":[null]}',
  '{"type":"presence_events","room":"public:r","from":1,"seq":2,"changes":[{"event":"join","user_id":"x"}]}',
  '{"type":"presence_count","room":"public:r","seq":1,"total":"many"}',
  '{"type":"error"}',
  '{"type":"error","id":1,"code":"x"}',
  '{"type":"error","id":null,"code":999,"message":7,"retry_after_ms":-5}',
  '{"type":"disconnect"}',
  '{"type":"disconnect","code":"x","reason":1}',
  '{"type":"token_expiring"}',
  '{"type":"refreshed","id":1}',
  '{"type":"hello","features":[{"toString":1,"valueOf":1}],"request_id":{"toString":1}}',
  '{"type":{"toString":1}}',
  '{"type":"status","id":1}',
  '{"type":"pong","id":1}',
  '{"type":"history","id":1,"messages":7}',
  '{"type":"message","room":"public:r","epoch":"00000000000000a1","offset":9007199254740992,"data":1,"timestamp":"t"}',
  '{"type":"message","room":"public:r","epoch":"00000000000000a1","offset":9007199254740993,"data":1,"timestamp":"t"}',
  '{"type":"message","room":"public:r","epoch":"00000000000000a1","offset":9223372036854775808,"data":1,"timestamp":"t"}',
  '{"type":"message","room":"public:r","epoch":"00000000000000a1","offset":18446744073709551616,"data":1,"timestamp":"t"}',
  '{"type":"unheard_of","id":5,"data":[]}',
];

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
