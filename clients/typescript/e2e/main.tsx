// A small application as somebody would write it: a chat over protocol v2 and a component of document 003.
// It must never know that it is tested, but for the token that its page hands it.

import { BackoffStrategy, RoomkeeperClient } from '@roomkeeper/client';
import { WebSocketDiagnosticsWrapper } from '@roomkeeper/client/diagnostics';
import {
  configure,
  RoomkeeperProvider,
  useClientState,
  usePresence,
  useRoom,
  useWebSocketConnection,
} from '@roomkeeper/client/react';
import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const server = query.get('server') ?? 'ws://localhost:8000';
const page = window as { freshToken?: () => Promise<string> };
configure({ VITE_WS_URL: server, DEV: query.has('dev') });

const client = new RoomkeeperClient({
  url: server,
  clientId: crypto.randomUUID(),
  token: query.has('user') ? () => page.freshToken?.() ?? null : null,
});
const losses: string[] = [];
client.on('lost', ({ text }) => losses.push(text));

function Chat({ room }: { room: string }) {
  const { phase } = useClientState();
  const { isJoined, messages, publish } = useRoom<string>(room, { keep: 1000 });
  const { members } = usePresence(room);
  const [text, setText] = useState('');
  return (
    <section>
      <h2>Chat</h2>
      <p id="chat-state">{isJoined ? 'joined' : phase}</p>
      <p id="members">{members.map(({ user_id }) => user_id).join(', ')}</p>
      <p id="losses">{losses.length}</p>
      <ol id="messages">
        {messages.map(({ offset, data }) => (
          <li key={offset}>{data}</li>
        ))}
      </ol>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void publish(text);
          setText('');
        }}
      >
        <input id="say" value={text} onChange={(event) => setText(event.target.value)} aria-label="Message" />
      </form>
    </section>
  );
}

const options = query.has('immediate') ? { backoffStrategy: BackoffStrategy.createImmediateStrategy() } : {};

function Documented() {
  const { isConnected, isConnecting, isFallback, connect, disconnect, send, onMessage, state } =
    useWebSocketConnection(options);
  const [heard, setHeard] = useState<string[]>([]);
  useEffect(() => onMessage(({ type }) => setHeard((before) => [...before, type])), [onMessage]);
  return (
    <section>
      <h2>WebSocket</h2>
      <p id="status">
        {isConnected ? 'Connected' : isConnecting ? 'Connecting' : isFallback ? 'Fallback' : 'Disconnected'}
      </p>
      <p id="reason">{state.fallback_reason}</p>
      <p id="heard">{heard.join(', ')}</p>
      <button type="button" onClick={connect} disabled={isConnected}>
        Connect now
      </button>
      <button type="button" onClick={disconnect} disabled={!isConnected}>
        Disconnect now
      </button>
      <button type="button" onClick={() => send({ type: 'test_message', payload: { test: 'data' } })}>
        Send Message
      </button>
    </section>
  );
}

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <RoomkeeperProvider client={client}>
        <Chat room={query.get('room') ?? 'public:lobby'} />
      </RoomkeeperProvider>
      <Documented />
      <WebSocketDiagnosticsWrapper />
    </StrictMode>,
  );
}
