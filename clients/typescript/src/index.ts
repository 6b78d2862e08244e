// `@roomkeeper/client`: the clients of `/ws/client` and of protocol v2.
//
// It must never import React, nor anything at run time that is not in this package.

export { type BackoffConfig, BackoffStrategy } from './connection/backoff.js';
export type { Failure, WSErrorClass } from './connection/classify.js';
export type { Loss } from './connection/driver.js';
export type { Environment, SocketConstructor, SocketLike } from './connection/environment.js';
export type { WSConnectionPhase } from './connection/life.js';
export type { Unsubscribe } from './emitter.js';
export { WebSocketManager } from './manager/manager.js';
export type {
  WebSocketManagerOptions,
  WSConnectionAttempt,
  WSConnectionStats,
  WSHelloMessage,
  WSMessage,
  WSState,
} from './manager/types.js';
export { type ClientOptions, RoomkeeperClient, type TokenSource } from './v2/client.js';
export type { Room } from './v2/room.js';
export {
  type ClientEvents,
  type ClientState,
  type Gap,
  type Joined,
  type JoinOptions,
  type Left,
  type Message,
  type Presence,
  type Published,
  type PublishOptions,
  RequestError,
  type RequestErrorCode,
  type RoomEvents,
  type RoomState,
} from './v2/types.js';
