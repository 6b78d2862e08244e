// @vitest-environment happy-dom
// The real world around a connection: signs of life of the network and the page, and a runtime without a WebSocket.
// It must never open a socket.

import { afterEach, expect, it, vi } from 'vitest';
import { realEnvironment } from '../src/connection/environment.js';
import { RoomkeeperClient, type SocketConstructor, WebSocketManager } from '../src/index.js';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

it('time goes on while the machine sleeps, and never back', () => {
  let runs = 5000;
  let wall = 1_800_000_000_000;
  vi.spyOn(performance, 'now').mockImplementation(() => runs);
  vi.spyOn(Date, 'now').mockImplementation(() => wall);
  const { now } = realEnvironment();
  const start = now();
  const passes = (runsMs: number, wallMs: number) => {
    runs += runsMs;
    wall += wallMs;
    return now() - start;
  };
  expect(passes(1000, 1000)).toBe(1000);
  // It slept for an hour.
  expect(passes(0, 3_600_000)).toBe(3_601_000);
  // Somebody has set the clock back.
  expect(passes(10, -7_200_000)).toBe(3_601_010);
  expect(passes(1000, 1000)).toBe(3_602_010);
});

it('a connection that slept through its end is given up as soon as the page is back', () => {
  const sockets: { onopen(): void; onmessage(event: object): void; close(): void }[] = [];
  class Quiet {
    onopen = () => {};
    onmessage = () => {};
    constructor() {
      sockets.push(this);
    }
    send(): void {}
    close(): void {}
  }
  let wall = 1_800_000_000_000;
  vi.spyOn(Date, 'now').mockImplementation(() => wall);
  const client = new RoomkeeperClient({ url: 'ws://h', WebSocket: Quiet as unknown as SocketConstructor });
  client.connect();
  sockets[0]?.onopen();
  sockets[0]?.onmessage({ data: '{"type":"hello","id":null,"features":[],"rooms":[],"heartbeat_interval_ms":25000}' });
  expect(client.state.phase).toBe('open');
  document.dispatchEvent(new Event('visibilitychange'));
  expect(client.state.phase).toBe('open');
  wall += 3_600_000;
  document.dispatchEvent(new Event('visibilitychange'));
  expect(client.state.phase).toBe('reconnecting');
  client.close();
});

it('the browser says when the network is back, and when the page is seen again, until nobody listens', () => {
  const heard: string[] = [];
  const off = realEnvironment().onWake((by) => heard.push(by));
  let visibility = 'hidden';
  vi.spyOn(document, 'visibilityState', 'get').mockImplementation(() => visibility as never);
  dispatchEvent(new Event('online'));
  document.dispatchEvent(new Event('visibilitychange'));
  expect(heard).toEqual(['online']);
  visibility = 'visible';
  document.dispatchEvent(new Event('visibilitychange'));
  expect(heard).toEqual(['online', 'visible']);
  off();
  dispatchEvent(new Event('online'));
  document.dispatchEvent(new Event('visibilitychange'));
  expect(heard).toEqual(['online', 'visible']);
});

it('where there is no page, as in Node, nothing wakes anybody', () => {
  vi.stubGlobal('document', undefined);
  vi.stubGlobal('addEventListener', undefined);
  vi.stubGlobal('removeEventListener', undefined);
  expect(realEnvironment().onWake(() => {})()).toBeUndefined();
});

it('a client without a WebSocket says so at once, and does not go on trying', async () => {
  vi.stubGlobal('WebSocket', undefined);
  const client = new RoomkeeperClient({ url: 'ws://h' });
  client.connect();
  expect(client.state).toEqual({
    phase: 'fallback',
    reason: 'closed with 1005 pass the option WebSocket',
  });
  client.close();
  const lines: string[] = [];
  const manager = new WebSocketManager('ws://h', 'x', { log: (line) => lines.push(line) });
  manager.connect();
  expect(manager.getState()).toMatchObject({ phase: 'fallback', stats: { total_attempts: 1 } });
  expect(lines).toContain('[WS] Connection failed: closed with 1005 pass the option WebSocket');
  manager.disconnect();
});
