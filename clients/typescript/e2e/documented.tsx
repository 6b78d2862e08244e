// The component of document 003. It must never hold a connection of its own: the page has one.

import { BackoffStrategy } from '@roomkeeper/client';
import { useWebSocketConnection } from '@roomkeeper/client/react';
import { useEffect, useState } from 'react';

const query = new URLSearchParams(location.search);
const options = query.has('immediate') ? { backoffStrategy: BackoffStrategy.createImmediateStrategy() } : {};

export function Documented() {
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
