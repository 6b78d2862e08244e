// What of patterns the vectors don't show. It must never wait for time to pass.

import { expect, it } from 'vitest';
import { RoomkeeperClient } from '../src/index.js';
import { Pattern } from '../src/patterns.js';
import { FakeServer } from '../src/testing/index.js';

/** A client that is connected to a server which says of patterns what the test says. */
async function connected() {
  const server = new FakeServer();
  const client = new RoomkeeperClient({ url: 'ws://fake', environment: server.environment, requestTimeoutMs: 3000 });
  client.connect();
  await server.clock.advance(100);
  const asked = () => server.received.filter(({ pattern }) => pattern === 'public:*');
  /** The server lets whoever has asked last follow. */
  const grant = async () => {
    await server.clock.advance(10);
    const answer = { type: 'subscribed', id: asked().at(-1)?.id, room: null, pattern: 'public:*', messages: [] };
    for (const connection of server.connections) connection.say(answer);
    await server.clock.advance(10);
  };
  return { server, client, asked, grant };
}

it('a question that is not answered is asked again, behind an end', async () => {
  const { server, client, asked } = await connected();
  server.partition();
  const pattern = new Pattern(client, 'public:*');
  const told: unknown[] = [];
  pattern.on('following', () => told.push('following'));
  pattern.on('ended', ({ code }) => told.push(code));
  await server.clock.advance(4500);
  server.heal();
  await server.clock.advance(100);
  expect(asked().map(({ type }) => type)).toEqual(['subscribe', 'unsubscribe', 'subscribe']);
  expect(told.filter((one) => one === 'following')).toEqual([]);
  client.close();
  await server.clock.advance(60_000);
  expect(server.clock.pending).toBe(0);
});

it('that it is followed no longer is told where the application ends the connection, too', async () => {
  const { server, client, grant } = await connected();
  const pattern = new Pattern(client, 'public:*');
  const told: unknown[] = [];
  pattern.on('following', () => told.push('following'));
  pattern.on('ended', (left) => told.push(left));
  await grant();
  client.disconnect();
  const ended = { code: null, reason: null };
  expect(told).toEqual(['following', ended]);
  client.connect();
  await server.clock.advance(100);
  await grant();
  expect(told).toEqual(['following', ended, 'following']);
  client.close();
});

it.each([
  [0, 100],
  [-5, 1000],
  [1e300, 3_600_000],
  [700, 700],
])('a refusal for the moment that names %d ms is waited out for %d ms', async (retry_after_ms, wait) => {
  const { server, client, asked } = await connected();
  server.refusals.set('subscribe', { code: 114, error: 'unavailable', retry_after_ms });
  new Pattern(client, 'public:*');
  // One way takes 1 ms.
  await server.clock.advance(2 + wait - 1);
  expect(asked()).toHaveLength(1);
  await server.clock.advance(2);
  expect(asked()).toHaveLength(2);
  client.close();
});

it('it is followed later where too much else is open for it to be asked for', async () => {
  const { server, client, asked, grant } = await connected();
  const open = Array.from({ length: 1024 }, () => client.status().catch(() => {}));
  const pattern = new Pattern(client, 'public:*');
  const told: unknown[] = [];
  pattern.on('following', () => told.push('following'));
  await server.clock.advance(999);
  await Promise.all(open);
  expect(asked()).toHaveLength(0);
  await grant();
  expect(told).toEqual(['following']);
  client.close();
});

it('stopped while it waits it leaves no timer and no listener', async () => {
  const { server, client, asked } = await connected();
  server.refusals.set('subscribe', { code: 114, error: 'unavailable' });
  const pattern = new Pattern(client, 'public:*');
  const told: unknown[] = [];
  pattern.on('ended', ({ code }) => told.push(code));
  await server.clock.advance(1500);
  expect(told).toEqual([114, 114]);
  pattern.stop();
  pattern.stop();
  await server.clock.advance(5000);
  server.breakConnections();
  await server.clock.advance(5000);
  expect(asked().map(({ type }) => type)).toEqual(['subscribe', 'subscribe']);
  expect(told).toEqual([114, 114]);
  client.close();
  await server.clock.advance(60_000);
  expect(server.clock.pending).toBe(0);
});
