// `WebSocketManager` against the fake server: what document 003 says of it, name by name.
// It must never look behind the manager's public face.

import { describe, expect, it, vi } from 'vitest';
import { BackoffStrategy } from '../src/index.js';
import { clientUrl } from '../src/machine.js';
import { serverAndManager } from './world.js';

const quick = () => new BackoffStrategy({ baseDelaysMs: [100], capDelayMs: 100, jitterRatio: 0, maxAttempts: 3 });

describe('the address', () => {
  it('is the documented one', () => {
    expect(clientUrl('ws://localhost:8000', 'abc-123')).toBe(
      'ws://localhost:8000/ws/client?client_id=abc-123&version=1&role=frontend',
    );
  });
  it('keeps a path of its own, and what is http becomes ws', () => {
    expect(clientUrl('https://h/api/ws/client?x=1', 'a b', 1, 'admin')).toBe(
      'wss://h/api/ws/client?x=1&client_id=a+b&version=1&role=admin',
    );
  });
});

describe('the phases', () => {
  it('go from idle over connecting to open', async () => {
    const { manager, clock, lines } = serverAndManager();
    expect(manager.getState().phase).toBe('idle');
    manager.connect();
    expect(manager.getState().phase).toBe('connecting');
    await clock.advance(10);
    expect(manager.getState().phase).toBe('open');
    expect(lines).toEqual([
      '[WS] Attempting WebSocket connection',
      '[WS] transition from idle to connecting',
      '[WS] Received hello message from server',
      '[WS] transition from connecting to open',
    ]);
  });

  it('reconnect after a loss, and count', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    server.breakConnections();
    expect(manager.getState().phase).toBe('reconnecting');
    await clock.advance(1300);
    const { phase, stats, recent_attempts } = manager.getState();
    expect(phase).toBe('open');
    expect([stats.total_attempts, stats.successful_connections]).toEqual([2, 2]);
    expect(recent_attempts[0]).toMatchObject({
      attempt_number: 1,
      success: true,
      error_class: 'abnormal',
      close_code: 1006,
    });
    expect(recent_attempts[1]).toMatchObject({ attempt_number: 2, success: true, error_class: null });
  });

  it('reconnect after a loss that the runtime has no code for, as Deno', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    server.close(0);
    await clock.advance(5);
    expect(manager.getState().phase).toBe('reconnecting');
    expect(manager.getState().recent_attempts[0]).toMatchObject({ close_code: 1006, error_class: 'abnormal' });
  });

  it('end in fallback after the last attempt, and say why', async () => {
    const { server, manager, clock, lines } = serverAndManager({}, { backoffStrategy: quick() });
    server.crash();
    manager.connect();
    await clock.advance(10);
    expect(manager.getState().phase).toBe('failed');
    await clock.advance(1000);
    const state = manager.getState();
    expect(state).toMatchObject({
      phase: 'fallback',
      is_fallback_mode: true,
      fallback_reason: 'no connection to the server',
    });
    expect(state.stats.total_attempts).toBe(4);
    expect(state.recent_attempts.map(({ error_class }) => error_class)).toEqual(Array(4).fill('network'));
    expect(lines).toContain('[WS] Entering fallback mode');
    expect(lines).toContain('[WS] Connection failed: no connection to the server');
  });

  it('become degraded when the server is silent, and open again when it speaks', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    server.partition();
    await clock.advance(32_000);
    expect(manager.getState().phase).toBe('degraded');
    server.heal();
    await clock.advance(10);
    expect(manager.getState().phase).toBe('open');
  });

  // K09.
  it('give a server up that stays silent', async () => {
    const { server, manager, clock, lines } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    server.partition();
    await clock.advance(38_000);
    expect(manager.getState().phase).toBe('reconnecting');
    expect(manager.getState().recent_attempts.at(-1)?.error_class).toBe('timeout');
    expect(lines).toContain('[WS] Connection failed: heartbeat timeout');
  });

  it('doubt a connection when the network was away, and give it up at once if it is gone', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    server.network.wake('online');
    expect(manager.getState().phase).toBe('degraded');
    await clock.advance(10);
    expect(manager.getState().phase).toBe('open');
    server.partition();
    server.network.wake('online');
    await clock.advance(6240);
    expect(manager.getState().phase).toBe('degraded');
    await clock.advance(20);
    expect(manager.getState().phase).toBe('reconnecting');
    expect(manager.getState().recent_attempts[0]).toMatchObject({ error_class: 'timeout' });
  });

  it('do not watch the server without enableHeartbeat', async () => {
    const { server, manager, clock } = serverAndManager({}, { enableHeartbeat: false });
    manager.connect();
    await clock.advance(10);
    server.partition();
    await clock.advance(3_600_000);
    expect(manager.getState().phase).toBe('open');
  });

  it('give up an attempt after connectionTimeoutMs', async () => {
    const { server, manager, clock, lines } = serverAndManager({}, { connectionTimeoutMs: 1500 });
    server.partition();
    manager.connect();
    await clock.advance(1500);
    expect(manager.getState().phase).toBe('failed');
    expect(lines).toContain('[WS] Connection failed: network timeout');
    expect(manager.getState().recent_attempts[0]).toMatchObject({
      error_class: 'timeout',
      duration_ms: 1500,
      success: false,
    });
  });
});

describe('fallback', () => {
  async function fallen() {
    const world = serverAndManager({}, { backoffStrategy: quick() });
    world.server.crash();
    world.manager.connect();
    await world.clock.advance(1000);
    world.server.restart();
    return world;
  }

  it('is left by connect', async () => {
    const { manager, clock } = await fallen();
    manager.connect();
    await clock.advance(10);
    expect(manager.getState()).toMatchObject({ phase: 'open', is_fallback_mode: false, fallback_reason: null });
  });

  it('is left when the browser is online again', async () => {
    const { server, manager, clock } = await fallen();
    server.network.wake('online');
    await clock.advance(10);
    expect(manager.getState().phase).toBe('open');
  });

  it('is left by a probe each minute, and goes on while that fails', async () => {
    const { server, manager, clock } = await fallen();
    server.crash();
    await clock.advance(59_900);
    expect(manager.getState()).toMatchObject({ phase: 'fallback', is_fallback_mode: true });
    expect(manager.getState().stats.total_attempts).toBe(5);
    server.restart();
    await clock.advance(60_100);
    expect(manager.getState()).toMatchObject({ phase: 'open', is_fallback_mode: false });
  });

  it('is over for whoever connects while a probe is under way: if that fails, the next attempt comes soon', async () => {
    const { server, manager, clock } = await fallen();
    server.partition();
    await clock.until(() => manager.getState().phase === 'reconnecting');
    expect(manager.getState().is_fallback_mode).toBe(true);
    manager.connect();
    expect(manager.getState()).toMatchObject({ phase: 'reconnecting', is_fallback_mode: false });
    await clock.until(() => manager.getState().phase !== 'reconnecting');
    expect(manager.getState()).toMatchObject({ phase: 'failed', is_fallback_mode: false });
    server.heal();
    await clock.advance(200);
    expect(manager.getState().phase).toBe('open');
  });

  it('is for good where the server says not to come back', async () => {
    const { server, manager, clock } = serverAndManager();
    server.closeNext(4400);
    manager.connect();
    await clock.advance(3_600_000);
    server.network.wake('online');
    await clock.advance(10);
    const state = manager.getState();
    expect(state).toMatchObject({ phase: 'fallback', fallback_reason: 'closed with 4400' });
    expect(state.stats.total_attempts).toBe(1);
    expect(state.recent_attempts[0]).toMatchObject({ error_class: 'handshake', close_code: 4400, next_delay_ms: null });
  });
});

describe('messages', () => {
  it('go to every listener, but those of the system', async () => {
    const { server, manager, clock } = serverAndManager({ echo: true });
    const heard: string[] = [];
    const system: string[] = [];
    manager.onMessage(({ type }) => heard.push(type));
    manager.onSystemMessage(({ type }) => system.push(type));
    manager.connect();
    await clock.advance(10);
    expect(manager.send({ type: 'test_message', payload: { test: 'data' } })).toBe(true);
    manager.ping();
    manager.send({ type: 'status' });
    await clock.advance(10);
    expect(heard).toEqual(['test_message']);
    expect(system).toEqual(['hello', 'pong', 'status']);
    expect(server.received[0]).toMatchObject({ type: 'test_message', timestamp: expect.stringMatching(/^\d{4}-.*Z$/) });
  });

  it('are counted, by type too', async () => {
    const { manager, clock } = serverAndManager({ echo: true, heartbeatMs: 5000 });
    manager.connect();
    await clock.advance(10);
    manager.send({ type: 'a' });
    manager.ping();
    await clock.advance(5100);
    const { stats } = manager.getState();
    expect(stats).toMatchObject({ messages_sent: 1, messages_received: 2, heartbeats_sent: 2, heartbeats_received: 2 });
    expect(stats.message_counts_by_type).toEqual({ hello: 1, a: 1, pong: 1, ping: 1 });
    expect(stats.connection_start).toBeInstanceOf(Date);
    expect(stats.last_activity).toBeInstanceOf(Date);
    expect(stats.current_uptime_ms).toBeGreaterThan(5000);
  });

  it('of more types than are counted apart count as other', async () => {
    const { server, manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    for (const connection of server.connections) for (let n = 0; n < 200; n++) connection.raw(`{"type":"t${n}"}`);
    for (const connection of server.connections) connection.raw('{"type":"__proto__"}');
    await clock.advance(10);
    const { message_counts_by_type: counts } = manager.getState().stats;
    expect(Object.keys(counts)).toHaveLength(65);
    expect(counts.other).toBe(138);
  });

  // K06.
  it('reach the next listener when one throws', async () => {
    const { manager, clock } = serverAndManager({ echo: true });
    const report = vi.spyOn(console, 'error').mockImplementation(() => {});
    const heard: string[] = [];
    manager.onMessage(() => {
      throw new Error('mine');
    });
    manager.onMessage(async () => {
      throw new Error('later');
    });
    manager.onMessage(({ type }) => heard.push(type));
    manager.connect();
    await clock.advance(10);
    manager.send({ type: 'a' });
    await clock.advance(10);
    expect(heard).toEqual(['a']);
    expect(report).toHaveBeenCalledTimes(2);
    report.mockRestore();
  });

  it('are not sent without a connection', () => {
    expect(serverAndManager().manager.send({ type: 'a' })).toBe(false);
  });
});

describe('the state', () => {
  it('has the documented fields', async () => {
    const { manager, clock } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    const state = manager.getState();
    expect(Object.keys(state)).toEqual([
      'phase',
      'client_id',
      'url',
      'stats',
      'current_attempt',
      'recent_attempts',
      'fallback_reason',
      'last_hello_message',
      'connection_features',
      'is_fallback_mode',
    ]);
    expect(Object.keys(state.stats).sort()).toEqual([
      'connection_start',
      'current_uptime_ms',
      'heartbeats_received',
      'heartbeats_sent',
      'last_activity',
      'message_counts_by_type',
      'messages_received',
      'messages_sent',
      'successful_connections',
      'total_attempts',
    ]);
    expect(state.connection_features).toEqual([
      'heartbeat',
      'structured_messages',
      'error_codes',
      'graceful_reconnect',
    ]);
    expect(state.last_hello_message).toMatchObject({ client_id: 'abc-123', accepted_version: 1 });
  });

  it('is the same object until something changes', async () => {
    const { manager, clock } = serverAndManager();
    const before = manager.getState();
    expect(manager.getState()).toBe(before);
    manager.connect();
    await clock.advance(10);
    expect(manager.getState()).not.toBe(before);
    expect(before.phase).toBe('idle');
  });

  it('remembers ten attempts', async () => {
    const { server, manager, clock } = serverAndManager(
      {},
      { backoffStrategy: new BackoffStrategy({ maxAttempts: 30, capDelayMs: 100 }) },
    );
    server.crash();
    manager.connect();
    await clock.advance(3000);
    const { recent_attempts, stats } = manager.getState();
    expect(stats.total_attempts).toBeGreaterThan(20);
    expect(recent_attempts).toHaveLength(10);
    expect(recent_attempts.at(-1)?.attempt_number).toBe(stats.total_attempts);
  });

  it('shows the attempt under way, with the documented fields', async () => {
    const { manager, clock } = serverAndManager();
    manager.connect();
    const nothing = { error_class: null, error_message: null, close_code: null, next_delay_ms: null };
    const attempt = { attempt_number: 1, started_at: expect.any(Date), duration_ms: null, success: null, ...nothing };
    expect(manager.getState().current_attempt).toStrictEqual(attempt);
    await clock.advance(10);
    const { current_attempt, recent_attempts } = manager.getState();
    expect([current_attempt, recent_attempts]).toStrictEqual([null, [{ ...attempt, duration_ms: 2, success: true }]]);
  });
});

describe('the log', () => {
  it('does not repeat a line', async () => {
    const { server, manager, clock, lines } = serverAndManager();
    manager.connect();
    await clock.advance(10);
    for (const connection of server.connections) for (let n = 0; n < 5; n++) connection.raw('nonsense');
    await clock.advance(10);
    for (const [i, line] of lines.entries()) expect(line).not.toBe(lines[i + 1]);
    expect(lines.filter((line) => line.includes('no type'))).toHaveLength(1);
    expect(manager.getState().phase).toBe('open');
  });

  it('sums a connection up', async () => {
    const { manager, clock, lines } = serverAndManager();
    manager.connect();
    await clock.advance(1000);
    manager.disconnect();
    const line = lines.find((text) => text.startsWith('[WS] Statistics: ')) ?? '';
    expect(JSON.parse(line.slice('[WS] Statistics: '.length))).toMatchObject({
      current_uptime_ms: 998,
      heartbeats_sent: 0,
    });
  });
});

describe('the end', () => {
  // K01: and no timer is left.
  it('leaves no timer and no listener, from whatever phase', async () => {
    for (const wait of [0, 1, 10, 200, 35_000]) {
      const { server, manager, clock } = serverAndManager();
      manager.connect();
      await clock.advance(wait);
      if (wait > 200) server.partition();
      await clock.advance(wait);
      manager.disconnect();
      expect(manager.getState().phase).toBe('idle');
      await clock.advance(1000);
      server.crash();
      await clock.advance(1000);
      expect([server.network.listening, server.network.wires.size]).toEqual([0, 0]);
    }
  });

  it('and connect within a listener are carried out in their order', async () => {
    const { manager, clock } = serverAndManager();
    let isFirst = true;
    manager.onStateChange(({ phase }) => {
      if (phase !== 'open' || !isFirst) return;
      isFirst = false;
      manager.disconnect();
      manager.connect();
    });
    manager.connect();
    await clock.advance(100);
    expect(manager.getState()).toMatchObject({ phase: 'open', stats: { total_attempts: 2 } });
  });
});
