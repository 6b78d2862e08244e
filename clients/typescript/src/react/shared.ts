// What several components share: one manager and one client per address, and how many components are in a room.
//
// It must never end a connection because a component was mounted twice, as StrictMode does, or because its
// module was loaded anew: the counts live beside the modules, and ends wait for the end of the turn.

import { WebSocketManager } from '../manager/manager.js';
import { clientId, configuredUrl, isEnabled } from '../manager/settings.js';
import type { WebSocketManagerOptions, WSState } from '../manager/types.js';
import { type ClientOptions, RoomkeeperClient } from '../v2/client.js';

interface Shared {
  managers: Map<string, WebSocketManager>;
  clients: Map<string, RoomkeeperClient>;
  users: WeakMap<object, number>;
}

const KEY = Symbol.for('@roomkeeper/client');
const home = globalThis as { [KEY]?: Shared };

function shared(): Shared {
  home[KEY] ??= { managers: new Map(), clients: new Map(), users: new WeakMap() };
  return home[KEY];
}

/** Which manager a component wants; what is left out comes from the build's variables and local storage. */
export interface ManagerOptions extends WebSocketManagerOptions {
  url?: string;
  clientId?: string;
}

/** A manager that stays in fallback, for whoever has switched the connection off. */
class DisabledManager extends WebSocketManager {
  readonly #state: WSState = {
    ...super.getState(),
    phase: 'fallback',
    fallback_reason: 'WebSocket is disabled (VITE_WEBSOCKET_ENABLED)',
    is_fallback_mode: true,
  };

  override connect(): void {}

  override getState(): WSState {
    return this.#state;
  }
}

/** The manager of an address and a client; made when it is first asked for. */
export function sharedManager(options: ManagerOptions = {}): WebSocketManager {
  const { managers } = shared();
  const { url = configuredUrl(), clientId: id = clientId(), version = 1, role = 'frontend' } = options;
  const name = JSON.stringify([url, id, version, role]);
  let manager = managers.get(name);
  if (!manager) {
    manager = new (isEnabled() ? WebSocketManager : DisabledManager)(url, id, options);
    managers.set(name, manager);
  }
  return manager;
}

/**
 * The client of a name, which is the address unless another is given; made when it is first asked for. A module that
 * hot reload runs again gets the one that it had, with its connection and its rooms; only a reload of the page takes
 * other options.
 */
export function sharedClient(options: ClientOptions, name: string = options.url): RoomkeeperClient {
  const { clients } = shared();
  let client = clients.get(name);
  if (!client) {
    client = new RoomkeeperClient(options);
    clients.set(name, client);
  }
  return client;
}

/** Counts one more user of something; `first` is called with the first. Answers how to be no user any more. */
export function retain(thing: object, first: () => void, last: () => void): () => void {
  const { users } = shared();
  const count = users.get(thing) ?? 0;
  users.set(thing, count + 1);
  if (count === 0) first();
  return () => {
    // Whoever comes back within this turn has never been away.
    setTimeout(() => {
      const left = (users.get(thing) ?? 1) - 1;
      users.set(thing, left);
      if (left === 0) last();
    }, 0);
  };
}
