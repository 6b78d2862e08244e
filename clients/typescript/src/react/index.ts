// `@roomkeeper/client/react`: hooks over the clients.
//
// It must never have a state that the clients do not have: components see theirs.

export { clientId, configure, configuredUrl, isEnabled } from '../manager/settings.js';
export { type ConnectionOptions, useWebSocketConnection, type WebSocketConnection } from './connection.js';
export {
  RoomkeeperProvider,
  type UsedPresence,
  type UsedRoom,
  type UseRoomOptions,
  useClientState,
  usePresence,
  useRoom,
  useRoomkeeper,
} from './rooms.js';
export { sharedClient } from './shared.js';
