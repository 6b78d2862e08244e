// A small application as somebody would write it: a chat over protocol v2 and a component of document 003.
// It must never know that it is tested, but for the token that its page hands it.

import { WebSocketDiagnosticsWrapper } from '@roomkeeper/client/diagnostics';
import { configure, RoomkeeperProvider, sharedClient } from '@roomkeeper/client/react';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Chat } from './chat';
import { Documented } from './documented';

const query = new URLSearchParams(location.search);
const server = query.get('server') ?? 'ws://localhost:8000';
const page = window as { freshToken?: () => Promise<string> };
configure({ VITE_WS_URL: server, DEV: query.has('dev') });

const client = sharedClient({
  url: server,
  clientId: crypto.randomUUID(),
  token: query.has('user') ? () => page.freshToken?.() ?? null : null,
});

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
