// `@roomkeeper/client`: the clients of `/ws/client` and of protocol v2, and what they are made of.
//
// It must never import React, nor anything at run time that is not in this package.

export { type Backoff, type BackoffConfig, BackoffStrategy, fullJitter } from './connection/backoff.js';
export { classify, describe, type Failure, type WSErrorClass } from './connection/classify.js';
export type { Loss } from './connection/driver.js';
export { type Environment, realEnvironment, type SocketConstructor, type SocketLike } from './connection/environment.js';
export {
  type Effect,
  IDLE,
  type Life,
  type LifeConfig,
  type LifeEvent,
  type Step,
  transition,
  type WSConnectionPhase,
} from './connection/life.js';
export type { Unsubscribe } from './emitter.js';
export { clientUrl, WebSocketManager } from './manager/manager.js';
export { clientId, configure, configuredUrl, isDebugging, isDevelopment, isEnabled } from './manager/settings.js';
export type {
  WebSocketManagerOptions,
  WSConnectionAttempt,
  WSConnectionStats,
  WSHelloMessage,
  WSMessage,
  WSState,
} from './manager/types.js';
export { shouldReconnect } from './protocol.js';
export { type ClientOptions, RoomkeeperClient, type TokenSource } from './v2/client.js';
export type { Pattern, PatternEvents } from './v2/pattern.js';
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
