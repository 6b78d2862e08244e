// What somebody else writes against the package, entry by entry, to be compiled with the types that it is shipped with.
// It must never be run.

import {
  BackoffStrategy,
  type Gap,
  RequestError,
  type Room,
  RoomkeeperClient,
  WebSocketManager,
} from '@roomkeeper/client';
import { WebSocketDiagnosticsPanel, WebSocketDiagnosticsWrapper } from '@roomkeeper/client/diagnostics';
import { classify, IDLE, type Life, shouldReconnect } from '@roomkeeper/client/machine';
import { Pattern } from '@roomkeeper/client/patterns';
import { Limits, type MessageFrame } from '@roomkeeper/client/protocol';
import {
  RoomkeeperProvider,
  sharedClient,
  usePresence,
  useRoom,
  useWebSocketConnection,
} from '@roomkeeper/client/react';
import { FakeServer } from '@roomkeeper/client/testing';

type Said = { text: string };

export const server = new FakeServer({ anonymous: false });
export const client = new RoomkeeperClient({
  url: 'ws://fake',
  token: async () => 'ann',
  environment: server.environment,
});
export const room: Room<Said> = client.room<Said>('public:lobby');
room.on('message', ({ data, sender }) => `${sender.user_id}: ${data.text.trim()}`);
room.on('gap', ({ from, to, reason }: Gap) => `${to - from} ${reason satisfies string}`);
export const offset: Promise<number | null> = room
  .publish({ text: 'hello' }, { echo: false })
  .then((ack) => ack.offset);
// @ts-expect-error: a room says what it is for.
void room.publish({ words: 'hello' });

export const manager = new WebSocketManager('ws://fake', 'abc-123', { backoffStrategy: new BackoffStrategy() });
export const phase: Life['phase'] = manager.getState().phase;
// @ts-expect-error: nothing of the connection is to be set.
manager.getState().phase.length = 1;

export const pattern = new Pattern<Said>(client, 'public:*');
pattern.on('message', ({ room: name, data }) => name.concat(data.text));

export const isOver = (error: unknown): boolean => error instanceof RequestError && error.code === 'closed';
export const isForGood = (code: number): boolean =>
  !shouldReconnect(code) && classify({ code, reason: '', opened: true }) === 'handshake' && IDLE.attempts === 0;
export const fits = ({ offset: at }: MessageFrame): boolean => at <= Limits.integer;

function Chat() {
  const { messages, error, publish } = useRoom<Said>('public:lobby', { keep: 10, onGap: ({ from }) => from.toFixed() });
  const { members, total } = usePresence('public:lobby');
  const { isConnected, state } = useWebSocketConnection({ autoConnect: false });
  return (
    <button type="button" disabled={!isConnected} onClick={() => void publish({ text: `${total} here` })}>
      {messages.map(({ data }) => data.text)} {members.map(({ user_id }) => user_id)} {error?.message} {state.phase}
    </button>
  );
}

export const App = () => (
  <RoomkeeperProvider client={sharedClient({ url: 'ws://fake' })}>
    <Chat />
    <WebSocketDiagnosticsWrapper />
    <WebSocketDiagnosticsPanel manager={manager} onClose={() => manager.disconnect()} />
  </RoomkeeperProvider>
);
