// `@roomkeeper/client/diagnostics`: the panel, and when it is shown.
//
// It must never be shown to who has not asked for it: by `?wsDebug=1`, by `window.__A1_WS_DEBUG = true`, or
// in development by Ctrl+Shift+W.

import { useEffect, useState } from 'react';
import type { WebSocketManager } from '../manager/manager.js';
import { isDebugging, isDevelopment } from '../manager/settings.js';
import { type ManagerOptions, sharedManager } from '../react/shared.js';
import { WebSocketDiagnosticsPanel } from './panel.js';

export { WebSocketDiagnosticsPanel } from './panel.js';

/** How often the global flag is looked at, in ms. */
const LOOK_MS = 1000;

/** Which manager to show; without one that of `useWebSocketConnection` with the same options. */
export interface DiagnosticsOptions extends ManagerOptions {
  manager?: WebSocketManager;
}

/** Shows the panel to who has asked for it. */
export function WebSocketDiagnosticsWrapper({ manager, ...options }: DiagnosticsOptions) {
  // Looked at once it is mounted: what a server renders has no address.
  const [isAsked, setAsked] = useState(false);
  /** What the person has last wanted; null: nothing yet. */
  const [wish, setWish] = useState<boolean | null>(null);
  const isShown = wish ?? isAsked;
  useEffect(() => {
    const look = () => setAsked(isDebugging());
    look();
    const timer = setInterval(look, LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (!event.ctrlKey || !event.shiftKey || event.key.toLowerCase() !== 'w' || !isDevelopment()) return;
      event.preventDefault();
      setWish(!isShown);
    };
    globalThis.addEventListener('keydown', pressed);
    return () => globalThis.removeEventListener('keydown', pressed);
  }, [isShown]);
  if (!isShown) return null;
  return <WebSocketDiagnosticsPanel manager={manager ?? sharedManager(options)} onClose={() => setWish(false)} />;
}
