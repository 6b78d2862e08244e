// @vitest-environment happy-dom
//
// The diagnostics panel: when it is shown, and everything that the document lists.
// It must never look at colours or places, which a person judges.

import { act } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { WebSocketDiagnosticsPanel, WebSocketDiagnosticsWrapper } from '../src/diagnostics/index.js';
import { BackoffStrategy, WebSocketManager } from '../src/index.js';
import { configure, useWebSocketConnection } from '../src/react/index.js';
import { FakeServer } from '../src/testing/index.js';
import { mount, pass, press } from './dom.js';
import { NONSENSE } from './nonsense.js';
import { serverAndManager } from './world.js';

const page = globalThis as { __A1_WS_DEBUG?: boolean };
/** Vitest itself is a development build. */
const PRODUCTION = { DEV: false, MODE: 'production', NODE_ENV: 'production' };
const shown = (): HTMLElement | null => document.querySelector('aside');

afterEach(() => {
  delete page.__A1_WS_DEBUG;
  history.replaceState(null, '', '/');
  configure(PRODUCTION);
});
beforeEach(() => configure(PRODUCTION));

const shortcut = (key = 'W') =>
  act(async () => {
    globalThis.dispatchEvent(new KeyboardEvent('keydown', { ctrlKey: true, shiftKey: true, key }));
  });

it('is not there unless it is asked for', async () => {
  await mount(<WebSocketDiagnosticsWrapper />);
  await shortcut();
  expect(shown()).toBeNull();
});

it('is shown by ?wsDebug=1, and can be closed', async () => {
  history.replaceState(null, '', '/?wsDebug=1');
  await mount(<WebSocketDiagnosticsWrapper />);
  expect(shown()).not.toBeNull();
  await press('✕');
  expect(shown()).toBeNull();
});

it('asked for by the address it does not differ from what a server has rendered', async () => {
  const { manager } = serverAndManager();
  history.replaceState(null, '', '/?wsDebug=1');
  const wrapper = <WebSocketDiagnosticsWrapper manager={manager} />;
  vi.stubGlobal('location', undefined);
  const rendered = renderToString(wrapper);
  vi.unstubAllGlobals();
  const host = document.body.appendChild(document.createElement('div'));
  host.innerHTML = rendered;
  const complaints: unknown[] = [];
  const root = await act(async () =>
    hydrateRoot(host, wrapper, { onRecoverableError: (error) => complaints.push(error) }),
  );
  expect(complaints).toEqual([]);
  expect(shown()).not.toBeNull();
  await act(async () => root.unmount());
});

it('is shown by the global flag, also when that is set later', async () => {
  const server = new FakeServer();
  await mount(<WebSocketDiagnosticsWrapper environment={server.environment} />);
  expect(shown()).toBeNull();
  page.__A1_WS_DEBUG = true;
  await pass(server, 1000);
  expect(shown()).not.toBeNull();
});

it('is shown and hidden by Ctrl+Shift+W in development', async () => {
  configure({ DEV: true });
  await mount(<WebSocketDiagnosticsWrapper />);
  await shortcut('x');
  expect(shown()).toBeNull();
  await shortcut();
  expect(shown()).not.toBeNull();
  await shortcut('w');
  expect(shown()).toBeNull();
});

it('shows state, statistics, attempts, counts, features and uptime as they change', async () => {
  const { server, manager } = serverAndManager({ echo: true });
  await mount(<WebSocketDiagnosticsPanel manager={manager} />);
  expect(shown()?.textContent).toContain('WebSocket: idle');
  await press('Connect');
  await pass(server, 20);
  expect(shown()?.dataset.phase).toBe('open');
  manager.send({ type: 'chat' });
  await press('Ping');
  await pass(server, 65_000);
  const text = shown()?.textContent ?? '';
  for (const part of [
    'Uptime1 min 05 s',
    'Attempts1',
    'Messages received / sent2 / 1',
    'chat1',
    'pong1',
    'ping2',
    '#1',
    'connected',
  ]) {
    expect(text).toContain(part);
  }
  expect(text).toContain('heartbeat, structured_messages, error_codes, graceful_reconnect');
  expect(text).toContain('client abc-123');
  await act(async () => server.breakConnections());
  expect(shown()?.textContent).toContain('connected, abnormal: connection lost, next in');
  await press('Disconnect');
  expect(shown()?.dataset.phase).toBe('idle');
  await press('Reconnect');
  await pass(server, 20);
  expect(shown()?.dataset.phase).toBe('open');
});

it('says why it is in fallback', async () => {
  const { server, manager } = serverAndManager({}, { backoffStrategy: new BackoffStrategy({ maxAttempts: 0 }) });
  server.crash();
  await mount(<WebSocketDiagnosticsPanel manager={manager} />);
  await press('Connect');
  await pass(server, 20);
  expect(document.querySelector('[role=alert]')?.textContent).toBe('Fallback: no connection to the server');
  expect(shown()?.textContent).toContain('failed, network: no connection to the server');
});

// K10: what is shown came from a stranger.
it.each(NONSENSE)('stays there when the server says %j', async (text) => {
  const { server, manager } = serverAndManager();
  await mount(<WebSocketDiagnosticsPanel manager={manager} />);
  await press('Connect');
  await pass(server, 20);
  for (const connection of server.connections) connection.raw(text);
  await pass(server, 1000);
  expect(shown()?.dataset.phase).toBe('open');
});

it('shows no token that an address has', async () => {
  const manager = new WebSocketManager('ws://h/ws/client?token=secret&x=1', 'abc-123', { log: null });
  await mount(<WebSocketDiagnosticsPanel manager={manager} />);
  expect(shown()?.textContent).toContain('ws://h/ws/client?token=…&x=1&client_id=abc-123');
});

it('reads the state of the hook, and opens no connection of its own', async () => {
  history.replaceState(null, '', '/?wsDebug=1');
  const server = new FakeServer();
  const options = { url: 'ws://shared', environment: server.environment, log: null };
  function Application() {
    useWebSocketConnection(options);
    return <WebSocketDiagnosticsWrapper {...options} />;
  }
  await mount(<Application />);
  await pass(server, 20);
  expect(shown()?.dataset.phase).toBe('open');
  expect(server.connections.size).toBe(1);
});
