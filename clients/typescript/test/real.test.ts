// Both clients against the built server, over real sockets.
// It must never wait for time to pass: it waits for what is told, with a deadline.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { RoomkeeperClient, WebSocketManager } from '../src/index.js';
import { Pattern } from '../src/patterns.js';
import { BINARY, Binary, IS_REQUIRED, token, when } from './binary.js';

const BUNDLE = { bundle: true, write: false, format: 'esm', platform: 'node' } as const;
/** What runs in a process of its own, with no WebSocket but the runtime's. */
const NATIVE = `
  import { RoomkeeperClient } from '../src/index.ts';
  const client = new RoomkeeperClient({ url: process.argv[1], clientId: 'native' });
  const room = client.room('public:native');
  const heard = new Promise((resolve) => room.on('message', ({ data }) => resolve(data)));
  client.connect();
  await room.join();
  await room.publish('hello from node');
  console.log('joined, acked, heard', await heard);
  client.close();
  // The socket itself goes once the server has answered its close.
  const timers = process.getActiveResourcesInfo().filter((name) => name === 'Timeout');
  console.log('timers', timers.length);
  const isOurs = (name) => name !== 'PipeWrap';
  process.once('beforeExit', () => console.log('left', ...process.getActiveResourcesInfo().filter(isOurs)));
`;

it('under tests/run there is a binary', () => {
  if (IS_REQUIRED) expect(BINARY).toBeTruthy();
});

describe.skipIf(!BINARY)('the built server', () => {
  let server: Binary;
  const clients: RoomkeeperClient[] = [];
  const violations: string[] = [];

  beforeAll(async () => {
    server = await Binary.start(['--set', 'namespaces.public.patterns=true']);
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await server?.end();
  });

  afterEach(() => expect(violations).toEqual([]));

  function client(user: string | null): RoomkeeperClient {
    const options = {
      url: server.url(''),
      token: user && token(user),
      clientId: `ts-${clients.length}`,
      WebSocket,
    };
    const made = new RoomkeeperClient(options);
    clients.push(made);
    made.on('violation', (words) => violations.push(words));
    made.connect();
    return made;
  }

  it('takes a newcomer without a token, who joins, publishes and hears it', async () => {
    const room = client(null).room<{ text: string }>('public:lobby');
    const heard: unknown[] = [];
    let check = () => {};
    room.on('message', ({ data }) => {
      heard.push(data);
      check();
    });
    expect(await room.join()).toMatchObject({ recovered: false });
    expect(await room.publish({ text: 'hello' })).toMatchObject({ duplicate: false, level: 'accepted' });
    await when(
      () => heard.length === 1,
      (told) => {
        check = told;
        return () => {};
      },
    );
    expect(heard).toEqual([{ text: 'hello' }]);
    expect((await room.history()).messages).toHaveLength(1);
  });

  it('is killed and started again in the middle of a conversation: nothing is lost, nothing comes twice', {
    timeout: 60_000,
  }, async () => {
    const speaker = client('ann');
    const listener = client('bob');
    const heard: number[] = [];
    const gaps: unknown[] = [];
    let check = () => {};
    const room = listener.room<number>('chat:lobby');
    room.on('gap', (gap) => gaps.push(gap));
    room.on('message', ({ data }) => {
      heard.push(data);
      check();
    });
    await room.join();
    const acks: Promise<unknown>[] = [];
    const say = (from: number, to: number) => {
      for (let n = from; n < to; n++) acks.push(speaker.room<number>('chat:lobby').publish(n));
    };
    for (let round = 0; round < 3; round++) {
      say(round * 60, round * 60 + 30);
      await Promise.all(acks);
      // These are under way when it dies.
      say(round * 60 + 30, round * 60 + 60);
      await server.kill();
      await server.restart();
      await Promise.all(acks);
    }
    await when(
      () => heard.length >= 180,
      (told) => {
        check = told;
        return () => {};
      },
      40_000,
    );
    expect(heard).toEqual(Array.from({ length: 180 }, (_, n) => n));
    expect(gaps).toEqual([]);
  });

  it('comes back with one connect that has the ticket and every room', async () => {
    const one = client('cyd');
    const rooms = ['chat:lobby', 'chat:global'].map((name) => one.room(name));
    await Promise.all(rooms.map((room) => room.join()));
    await server.kill();
    await server.restart();
    const hello = await new Promise<{ resumed: unknown[] }>((resolve) => one.on('hello', resolve));
    expect(hello.resumed).toHaveLength(2);
    expect(rooms.map(({ state }) => state)).toEqual(['joined', 'joined']);
  });

  it('tells who is there, with updates', async () => {
    const dan = client('dan');
    const room = dan.room('public:stage');
    await room.join({ presence: true });
    const eve = client('eve').room('public:stage');
    await eve.join();
    await when(
      () => room.presence?.total === 2,
      (told) => room.on('presence', told),
    );
    await eve.updatePresence({ mood: 'fine' });
    await when(
      () => JSON.stringify(room.presence?.members.get('eve')?.data) === '{"mood":"fine"}',
      (told) => room.on('presence', told),
    );
    await eve.leave();
    await when(
      () => room.presence?.total === 1,
      (told) => room.on('presence', told),
    );
  });

  it('filters by tags', async () => {
    const fay = client('fay');
    const room = fay.room<string>('public:news');
    const heard: string[] = [];
    room.on('message', ({ data }) => heard.push(data));
    await room.join({ filter: { eq: { lang: 'de' } } });
    await room.publish('hello', { tags: { lang: 'en' } });
    await room.publish('hallo', { tags: { lang: 'de' } });
    await when(
      () => heard.length > 0,
      (told) => room.on('message', told),
    );
    expect(heard).toEqual(['hallo']);
  });

  it('follows a pattern, also after a kill', async () => {
    const gus = client('gus');
    const pattern = new Pattern<string>(gus, 'public:zone/*');
    const heard: string[] = [];
    const following = () => new Promise<void>((resolve) => pattern.on('following', resolve));
    pattern.on('message', ({ room, data }) => heard.push(`${room} ${data}`));
    await following();
    await gus.room('public:zone/1').publish('one');
    await when(
      () => heard.length === 1,
      (told) => pattern.on('message', told),
    );
    const again = following();
    await server.kill();
    await server.restart();
    await again;
    await gus.room('public:zone/2').publish('two');
    await when(
      () => heard.length === 2,
      (told) => pattern.on('message', told),
    );
    expect(heard).toEqual(['public:zone/1 one', 'public:zone/2 two']);
    pattern.stop();
  });

  it('says no to a pattern that is not offered, and to a room that is not allowed', async () => {
    const hal = client('hal');
    await hal.room('public:x').join();
    const pattern = new Pattern(hal, 'chat:guild/*');
    const ended = await new Promise<{ code: number | null }>((resolve) => pattern.on('ended', resolve));
    expect(ended.code).toBe(103);
    pattern.stop();
    await expect(hal.room('chat:guild/1').join()).rejects.toMatchObject({ refusal: { code: 103 } });
  });

  it('ends a client whose token is none', async () => {
    const bad = new RoomkeeperClient({ url: server.url(''), token: 'nonsense', WebSocket });
    clients.push(bad);
    bad.connect();
    await when(
      () => bad.state.phase === 'fallback',
      (told) => bad.on('state', told),
    );
    expect(bad.state.reason).toBe('closed with 3500 unauthenticated');
  });

  it('greets a manager, answers ping and status, and refuses another version for good', async () => {
    const manager = new WebSocketManager(server.url(''), 'abc-123', { WebSocket, log: null });
    const system: string[] = [];
    let check = () => {};
    manager.onSystemMessage(({ type }) => {
      system.push(type);
      check();
    });
    manager.connect();
    await when(
      () => manager.getState().phase === 'open',
      (told) => manager.onStateChange(told),
    );
    manager.ping();
    manager.send({ type: 'status' });
    manager.send({ type: 'test_message', payload: { test: 'data' } });
    await when(
      () => system.length === 4,
      (told) => {
        check = told;
        return () => {};
      },
    );
    expect(system).toEqual(['hello', 'pong', 'status', 'error']);
    expect(manager.getState().connection_features).toContain('heartbeat');
    manager.disconnect();
    const other = new WebSocketManager(server.url(''), 'abc-123', { WebSocket, log: null, version: 2 });
    other.connect();
    await when(
      () => other.getState().phase === 'fallback',
      (told) => other.onStateChange(told),
    );
    expect(other.getState().recent_attempts.at(-1)).toMatchObject({ close_code: 4400, error_class: 'handshake' });
  });

  // K01: and no handle is left.
  it('talks to the WebSocket that Node has of its own, and leaves nothing behind a close', async () => {
    const bundle = await build({ ...BUNDLE, stdin: { contents: NATIVE, resolveDir: import.meta.dirname } });
    const flags = process.versions.node.startsWith('20.') ? ['--experimental-websocket'] : [];
    const words = [...flags, '--input-type=module', '--eval', bundle.outputFiles[0]?.text ?? '', server.url('')];
    const { stdout } = await promisify(execFile)(process.execPath, words, { timeout: 20_000 });
    expect(stdout.split('\n')).toEqual(['joined, acked, heard hello from node', 'timers 0', 'left', '']);
  });

  it('that is not there is a failure of the network, and a path that it does not have one of the handshake', async () => {
    const nobody = new WebSocketManager('ws://127.0.0.1:1', 'x', { WebSocket, log: null });
    nobody.connect();
    await when(
      () => nobody.getState().phase === 'failed',
      (told) => nobody.onStateChange(told),
    );
    expect(nobody.getState().recent_attempts[0]?.error_class).toBe('network');
    nobody.disconnect();
    const lost = new WebSocketManager(server.url('/client_/ws/client_abc-123'), 'x', { WebSocket, log: null });
    lost.connect();
    await when(
      () => lost.getState().phase === 'failed',
      (told) => lost.onStateChange(told),
    );
    expect(lost.getState().recent_attempts[0]).toMatchObject({
      error_class: 'handshake',
      error_message: 'Unexpected server response: 404',
    });
    lost.disconnect();
  });
});
