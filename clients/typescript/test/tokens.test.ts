// Tokens, as `RoomkeeperClient` asks for them and shows them to the fake server.
// It must never look behind the client's public face.

import { describe, expect, it, vi } from 'vitest';
import { serverAndClient } from './world.js';

describe('tokens', () => {
  it('are asked for once per connection, and a ticket saves asking', async () => {
    const token = vi.fn(async () => 'ann');
    const { server, client, clock } = serverAndClient({ anonymous: false }, { token });
    client.connect();
    await clock.advance(20);
    server.breakConnections();
    await clock.advance(1000);
    expect(client.state.phase).toBe('open');
    expect(token).toHaveBeenCalledTimes(1);
    const connects = server.received.filter(({ type }) => type === 'connect');
    expect(connects[1]).toMatchObject({ token: 'ann', session: 'ticket-of-ann' });
  });

  it('are got anew after 3004', async () => {
    let n = 0;
    const { server, client, clock } = serverAndClient({ anonymous: false }, { token: () => `ann-${++n}` });
    client.connect();
    await clock.advance(20);
    server.close(3004, 'token_expired');
    await clock.advance(1000);
    expect(server.received.filter(({ type }) => type === 'connect').at(-1)).toMatchObject({
      token: 'ann-2',
      session: null,
    });
    expect(client.state.phase).toBe('open');
  });

  // K08: of no use, again and again.
  it('that do not count, fresh as they are, are a stop', async () => {
    let n = 0;
    const authenticate = () => undefined;
    const { client, clock } = serverAndClient({ anonymous: false, authenticate }, { token: () => `bad-${++n}` });
    client.connect();
    await clock.advance(60_000);
    expect(client.state).toMatchObject({ phase: 'fallback', reason: 'closed with 3500 unauthenticated' });
    expect(n).toBe(1);
  });

  it('that do not count any more are got anew once', async () => {
    let n = 0;
    const good = new Set(['t1']);
    const authenticate = (shown: string) => (good.has(shown) ? 'ann' : undefined);
    const { server, client, clock } = serverAndClient({ anonymous: false, authenticate }, { token: () => `t${++n}` });
    client.connect();
    await clock.advance(20);
    server.spoiltTickets.add('ticket-of-ann');
    good.delete('t1');
    good.add('t2');
    server.breakConnections();
    await clock.advance(1000);
    expect([client.state.phase, n]).toEqual(['open', 2]);
    good.clear();
    server.breakConnections();
    await clock.advance(5000);
    expect([client.state.phase, n]).toEqual(['fallback', 3]);
  });

  // K08: rejecting.
  it('that can not be got are asked for a few times, with back-off, one at a time', async () => {
    const token = vi.fn(() => Promise.reject(new Error('no session')));
    const { client, clock } = serverAndClient({}, { token });
    client.connect();
    await clock.advance(600_000);
    expect(token).toHaveBeenCalledTimes(5);
    expect(client.state).toEqual({ phase: 'fallback', reason: 'closed with 3500 no token: Error: no session' });
  });

  // K08: slow.
  // K08: silent.
  it('that never come are given up, and asked for again', async () => {
    let n = 0;
    const token = () => (++n === 1 ? new Promise<string>(() => {}) : Promise.resolve('ann'));
    const { client, clock } = serverAndClient({ anonymous: false }, { token });
    client.connect();
    await clock.advance(29_000);
    expect([client.state.phase, n]).toEqual(['reconnecting', 1]);
    await clock.advance(30_000);
    expect([client.state.phase, n]).toEqual(['open', 2]);
  });

  it('that never come leave no timer behind a close', async () => {
    const { client, clock } = serverAndClient({}, { token: () => new Promise<string>(() => {}) });
    client.connect();
    await clock.advance(1000);
    client.close();
    expect(clock.pending).toBe(0);
  });

  it('that are slow to come are waited for by one call', async () => {
    let give: (token: string) => void = () => {};
    const token = vi.fn(() => new Promise<string>((resolve) => (give = resolve)));
    const { client, clock } = serverAndClient({ anonymous: false }, { token, connectTimeoutMs: 1000 });
    client.connect();
    await clock.advance(5000);
    expect(token).toHaveBeenCalledTimes(1);
    give('ann');
    await clock.advance(5000);
    expect(client.state.phase).toBe('open');
    expect(token).toHaveBeenCalledTimes(1);
  });

  it('are refreshed in place when the server says that one ends', async () => {
    let n = 0;
    const { server, client, clock } = serverAndClient({ anonymous: false }, { token: () => `t${++n}` });
    client.connect();
    await clock.advance(20);
    for (const connection of server.connections) connection.say({ type: 'token_expiring', expires_at: 'soon' });
    await clock.advance(20);
    expect(server.received.filter(({ type }) => type === 'refresh')).toMatchObject([{ token: 't2' }]);
    server.breakConnections();
    await clock.advance(1000);
    expect(server.received.at(-1)).toMatchObject({ type: 'connect', token: 't2', session: 'ticket-of-t2' });
  });

  /** Known by a token, with another that was asked for to refresh it still on its way. */
  async function refreshing() {
    const given: ((token: string) => void)[] = [];
    const token = () => new Promise<string>((resolve) => void given.push(resolve));
    const world = serverAndClient({ anonymous: false }, { token });
    world.client.connect();
    await world.clock.advance(0);
    given[0]?.('t1');
    await world.clock.advance(20);
    for (const connection of world.server.connections) connection.say({ type: 'token_expiring', expires_at: 'soon' });
    await world.clock.advance(20);
    return { ...world, give: (token: string) => given[1]?.(token), asked: () => given.length };
  }

  it('that come when the connection has changed refresh the one that there is', async () => {
    const { server, clock, give, asked } = await refreshing();
    server.breakConnections();
    await clock.advance(1000);
    give('t2');
    await clock.advance(20);
    expect(server.received.at(-1)).toMatchObject({ type: 'refresh', token: 't2' });
    expect(asked()).toBe(2);
  });

  it('that come when there is no connection serve the next', async () => {
    const { server, client, clock, give, asked } = await refreshing();
    client.disconnect();
    give('t2');
    await clock.advance(20);
    client.connect();
    await clock.advance(1000);
    expect(server.received.at(-1)).toMatchObject({ type: 'connect', token: 't2', session: null });
    expect([client.state.phase, asked()]).toEqual(['open', 2]);
  });

  it('are not asked for again behind a disconnect', async () => {
    let n = 0;
    const token = () => (++n === 1 ? 't1' : Promise.reject(new Error('no session')));
    const { server, client, clock } = serverAndClient({ anonymous: false }, { token });
    client.connect();
    await clock.advance(20);
    for (const connection of server.connections) connection.say({ type: 'token_expiring', expires_at: 'soon' });
    await clock.advance(20);
    client.disconnect();
    await clock.advance(10);
    expect([n, clock.pending]).toEqual([2, 0]);
  });

  it('are refused in the address, which ends up in logs', () => {
    const make = (url: string) => () => serverAndClient({}, { url });
    expect(make('ws://h/?token=secret')).toThrow('token in the URL');
    expect(make('ws://h/ws/v2/connect?x=1&token=secret')).toThrow('token in the URL');
    expect(make('ws://h/?tokens=1')).not.toThrow();
  });

  it('never stand in the address', async () => {
    const { server, client, clock } = serverAndClient({}, { token: 'secret' });
    client.connect();
    await clock.advance(20);
    expect([...server.network.wires].map(({ socket }) => socket.url)).toEqual([
      'ws://fake/ws/v2/connect?client_id=tab',
    ]);
  });
});
