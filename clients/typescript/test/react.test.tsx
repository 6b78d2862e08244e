// @vitest-environment happy-dom
//
// The hooks, under StrictMode: one connection however many components, rooms that are left by the last.
// It must never look at how the hooks do it.

import { act, useEffect } from 'react';
import { expect, it, vi } from 'vitest';
import { RoomkeeperClient } from '../src/index.js';
import {
  configure,
  RoomkeeperProvider,
  useClientState,
  usePresence,
  useRoom,
  useWebSocketConnection,
} from '../src/react/index.js';
import { FakeServer } from '../src/testing/index.js';
import { mount, pass, press } from './dom.js';

/** Managers are shared over the tests of a file; each test has its own address. */
let tests = 0;
function world() {
  tests += 1;
  const server = new FakeServer({ echo: true });
  const options = { url: `ws://fake-${tests}`, environment: server.environment, log: null };
  return { server, options };
}

function MyComponent({ options }: { options: object }) {
  const { isConnected, isConnecting, isFallback, connect, disconnect, send, onMessage, state } =
    useWebSocketConnection(options);
  useEffect(() => {
    const unsubscribe = onMessage((message) => {
      document.title = `${message.type}`;
    });
    return unsubscribe;
  }, [onMessage]);
  const sendTestMessage = () => {
    send({ type: 'test_message', timestamp: new Date().toISOString(), payload: { test: 'data' } });
  };
  return (
    <div>
      <p>
        Status: {isConnected ? 'Connected' : 'Disconnected'} {isConnecting && 'connecting'}{' '}
        {isFallback && state.fallback_reason}
      </p>
      <button type="button" onClick={connect} disabled={isConnected}>
        Connect
      </button>
      <button type="button" onClick={disconnect} disabled={!isConnected}>
        Disconnect
      </button>
      <button type="button" onClick={sendTestMessage} disabled={!isConnected}>
        Send Message
      </button>
    </div>
  );
}

it('the component of the document connects, sends, hears and disconnects', async () => {
  const { server, options } = world();
  const { host } = await mount(<MyComponent options={options} />);
  expect(host.textContent).toContain('Status: Disconnected connecting');
  await pass(server, 20);
  expect(host.textContent).toContain('Status: Connected');
  await press('Send Message');
  await pass(server, 20);
  expect(document.title).toBe('test_message');
  await press('Disconnect');
  expect(host.textContent).toContain('Status: Disconnected');
  await press('Connect');
  await pass(server, 20);
  expect(host.textContent).toContain('Status: Connected');
});

it('components share one connection, and StrictMode opens no second one', async () => {
  const { server, options } = world();
  const { render, unmount } = await mount(
    <>
      <MyComponent options={options} />
      <MyComponent options={options} />
    </>,
  );
  await pass(server, 20);
  expect(server.connections.size).toBe(1);
  await render(<MyComponent options={options} />);
  await pass(server, 20);
  expect(server.connections.size).toBe(1);
  await unmount();
  await pass(server, 20);
  expect(server.connections.size).toBe(0);
});

it('a module that is loaded anew finds the connection of the old one', async () => {
  const { server, options } = world();
  const { render } = await mount(<MyComponent options={options} />);
  await pass(server, 20);
  vi.resetModules();
  const anew = await import('../src/react/connection.js');
  expect(anew.useWebSocketConnection).not.toBe(useWebSocketConnection);
  function Anew() {
    return <p>{anew.useWebSocketConnection(options).isConnected ? 'still connected' : 'lost'}</p>;
  }
  const { host } = await mount(<Anew />);
  await render(null);
  await pass(server, 20);
  expect(host.textContent).toBe('still connected');
  expect([...server.connections].map(({ id }) => id)).toEqual(['0000000000000001']);
});

it('the connection goes to VITE_WS_URL under the id in local storage, and not at all when it is disabled', async () => {
  localStorage.setItem('ws_client_id', 'my-custom-id');
  configure({ VITE_WS_URL: 'ws://from-the-build:9' });
  const server = new FakeServer();
  function Address() {
    return <p>{useWebSocketConnection({ environment: server.environment, log: null }).state.url}</p>;
  }
  const { host, unmount } = await mount(<Address />);
  expect(host.textContent).toBe('ws://from-the-build:9/ws/client?client_id=my-custom-id&version=1&role=frontend');
  await unmount();
  configure({ VITE_WS_URL: 'ws://disabled:9', VITE_WEBSOCKET_ENABLED: 'false' });
  const { host: other } = await mount(<MyComponent options={{ environment: server.environment, log: null }} />);
  await press('Connect');
  await pass(server, 1000);
  expect(other.textContent).toContain('WebSocket is disabled');
  expect(server.network.wires.size).toBe(0);
  configure({});
});

function chat() {
  const server = new FakeServer();
  const client = new RoomkeeperClient({
    url: 'ws://fake',
    clientId: 'tab',
    token: 'ann',
    environment: server.environment,
  });
  return { server, client };
}

function Chat({ room, keep = 100 }: { room: string; keep?: number }) {
  const { isJoined, messages, publish, error } = useRoom<string>(room, { keep });
  return (
    <div>
      <p>
        {isJoined ? 'joined' : 'not joined'} {error?.refusal?.error}
      </p>
      <ol>
        {messages.map(({ offset, data }) => (
          <li key={offset}>{data}</li>
        ))}
      </ol>
      <button type="button" onClick={() => void publish('hello')}>
        Say
      </button>
    </div>
  );
}

function Who({ room }: { room: string }) {
  const { members, total, update } = usePresence(room);
  return (
    <div>
      <p>
        {total}: {members.map(({ user_id, data }) => `${user_id} ${JSON.stringify(data)}`).join(', ')}
      </p>
      <button type="button" onClick={() => void update({ mood: 'fine' })}>
        Smile
      </button>
    </div>
  );
}

it('useRoom joins, shows what comes, publishes, and leaves with the last component', async () => {
  const { server, client } = chat();
  const { host, render } = await mount(
    <RoomkeeperProvider client={client}>
      <Chat room="public:r" />
      <Chat room="public:r" keep={1} />
    </RoomkeeperProvider>,
  );
  await pass(server, 50);
  expect(host.textContent).toContain('joined');
  await press('Say');
  await pass(server, 50);
  server.publish('public:r', 'from elsewhere');
  await pass(server, 50);
  expect([...host.querySelectorAll('li')].map(({ textContent }) => textContent)).toEqual([
    'hello',
    'from elsewhere',
    'from elsewhere',
  ]);
  expect(server.received.filter(({ type }) => type === 'subscribe')).toHaveLength(1);
  await render(
    <RoomkeeperProvider client={client}>
      <Chat room="public:r" />
    </RoomkeeperProvider>,
  );
  await pass(server, 50);
  expect(client.room('public:r').state).toBe('joined');
  await render(<RoomkeeperProvider client={client} />);
  await pass(server, 50);
  expect(client.room('public:r').state).toBe('out');
});

it('useRoom shows a refusal, and begins anew with another room', async () => {
  const { server, client } = chat();
  server.forbidden.add('public:secret');
  const page = (room: string) => (
    <RoomkeeperProvider client={client}>
      <Chat room={room} />
    </RoomkeeperProvider>
  );
  const { host, render } = await mount(page('public:secret'));
  await pass(server, 50);
  expect(host.textContent).toContain('not joined permission_denied');
  await render(page('public:r'));
  await pass(server, 50);
  server.publish('public:r', 'x');
  await pass(server, 50);
  expect(host.querySelector('p')?.textContent).toBe('joined ');
  expect(host.querySelectorAll('li')).toHaveLength(1);
});

it('useRoom shows why the server has put it out, and on the way back why it does not let it in', async () => {
  const { server, client } = chat();
  const { host, render } = await mount(
    <RoomkeeperProvider client={client}>
      <Chat room="public:r" />
    </RoomkeeperProvider>,
  );
  await pass(server, 50);
  const said = () => host.querySelector('p')?.textContent;
  expect(said()).toBe('joined ');
  const put = { type: 'unsubscribed', id: null, room: 'public:r', code: 103, reason: 'permission_denied' };
  for (const connection of server.connections) connection.raw(JSON.stringify(put));
  await pass(server, 50);
  expect(said()).toBe('not joined permission_denied');
  const other = (
    <RoomkeeperProvider client={client}>
      <Chat room="public:other" />
    </RoomkeeperProvider>
  );
  await render(other);
  await pass(server, 50);
  expect(said()).toBe('joined ');
  server.forbidden.add('public:other');
  server.breakConnections();
  await pass(server, 5000);
  expect(said()).toBe('not joined permission_denied');
});

it('usePresence shows who is there, beside useRoom, and changes what others see', async () => {
  const { server, client } = chat();
  const { host } = await mount(
    <RoomkeeperProvider client={client}>
      <Chat room="public:r" />
      <Who room="public:r" />
    </RoomkeeperProvider>,
  );
  await pass(server, 100);
  expect(host.textContent).toContain('1: ann null');
  server.come(server.room('public:r'), 'bob');
  await press('Smile');
  await pass(server, 100);
  expect(host.textContent).toContain('2: ann {"mood":"fine"}, bob null');
  server.publish('public:r', 'still heard');
  await pass(server, 50);
  expect(host.textContent).toContain('still heard');
});

it('useClientState tells how the connection stands', async () => {
  const { server, client } = chat();
  function State() {
    return <p>{useClientState().phase}</p>;
  }
  const { host } = await mount(
    <RoomkeeperProvider client={client}>
      <State />
    </RoomkeeperProvider>,
  );
  await pass(server, 50);
  expect(host.textContent).toBe('open');
  await act(async () => server.breakConnections());
  expect(host.textContent).toBe('reconnecting');
});
