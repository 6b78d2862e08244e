// `useWebSocketConnection`: the shared manager of `/ws/client` for components.
//
// It must never open a second connection for a second component.

import { useCallback, useEffect, useMemo, useSyncExternalStore } from 'react';
import type { Unsubscribe } from '../emitter.js';
import type { WebSocketManager } from '../manager/manager.js';
import type { WSMessage, WSState } from '../manager/types.js';
import { type ManagerOptions, retain, sharedManager } from './shared.js';

/** Which connection, and whether it begins by itself. */
export interface ConnectionOptions extends ManagerOptions {
  /** Whether the first component that is mounted connects; true. */
  autoConnect?: boolean;
}

/** What a component gets. */
export interface WebSocketConnection {
  isConnected: boolean;
  isConnecting: boolean;
  isFallback: boolean;
  connect(): void;
  disconnect(): void;
  /** False when there is no connection. */
  send(message: WSMessage): boolean;
  onMessage(listener: (message: WSMessage) => unknown): Unsubscribe;
  state: WSState;
}

/** The state of a manager, as of its last change of phase, attempt or greeting. */
export function useManagerState(manager: WebSocketManager): WSState {
  const subscribe = useCallback((changed: () => void) => manager.onStateChange(changed), [manager]);
  const read = () => manager.getState();
  return useSyncExternalStore(subscribe, read, read);
}

/** The connection to `/ws/client` that all components of a page share. Its functions stay the same. */
export function useWebSocketConnection(options: ConnectionOptions = {}): WebSocketConnection {
  const { autoConnect = true } = options;
  const manager = sharedManager(options);
  const state = useManagerState(manager);
  useEffect(() => {
    const first = () => {
      if (autoConnect) manager.connect();
    };
    return retain(manager, first, () => manager.disconnect());
  }, [manager, autoConnect]);
  const functions = useMemo(
    () => ({
      connect: () => manager.connect(),
      disconnect: () => manager.disconnect(),
      send: (message: WSMessage) => manager.send(message),
      onMessage: (listener: (message: WSMessage) => unknown) => manager.onMessage(listener),
    }),
    [manager],
  );
  return {
    isConnected: state.phase === 'open' || state.phase === 'degraded',
    isConnecting: state.phase === 'connecting' || state.phase === 'reconnecting',
    isFallback: state.is_fallback_mode,
    ...functions,
    state,
  };
}
