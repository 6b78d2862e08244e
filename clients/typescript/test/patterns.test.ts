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
  return { server, client, asked };
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
