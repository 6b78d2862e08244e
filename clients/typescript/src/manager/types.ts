// What `WebSocketManager` says of itself, field by field as documented.
//
// It must never hold anything that a reader could change behind the manager's back.

import type { BackoffStrategy } from '../connection/backoff.js';
import type { WSErrorClass } from '../connection/classify.js';
import type { Environment, SocketConstructor } from '../connection/environment.js';
import type { WSConnectionPhase } from '../connection/life.js';

/** Any message of the endpoint. */
export interface WSMessage {
  type: string;
  /** ISO 8601; the server always says it, and a client may. */
  timestamp?: string;
  [field: string]: unknown;
}

/** The server's greeting. */
export interface WSHelloMessage {
  type: 'hello';
  server_time: string;
  accepted_version: number;
  features: string[];
  request_id: string;
  client_id: string;
  heartbeat_interval_ms: number;
}

/** One attempt to connect. */
export interface WSConnectionAttempt {
  /** Counts from 1 over the manager's life. */
  attempt_number: number;
  started_at: Date;
  /** Until `hello` or the failure; null while it is under way. */
  duration_ms: number | null;
  /** Null while it is under way. */
  success: boolean | null;
  /** How it failed, or how the connection that it made ended. */
  error_class: WSErrorClass | null;
  error_message: string | null;
  close_code: number | null;
  /** How long the manager waits after it; null when it does not. */
  next_delay_ms: number | null;
}

/** What was counted. Uptime is that of now; all the rest as of the state that it belongs to. */
export interface WSConnectionStats {
  total_attempts: number;
  successful_connections: number;
  current_uptime_ms: number;
  messages_received: number;
  messages_sent: number;
  heartbeats_received: number;
  heartbeats_sent: number;
  last_activity: Date | null;
  connection_start: Date | null;
  message_counts_by_type: Record<string, number>;
}

/** Everything about the connection. A state does not change; a change makes another one. */
export interface WSState {
  phase: WSConnectionPhase;
  client_id: string;
  url: string;
  stats: WSConnectionStats;
  current_attempt: WSConnectionAttempt | null;
  /** The last ten, oldest first. */
  recent_attempts: WSConnectionAttempt[];
  fallback_reason: string | null;
  last_hello_message: WSHelloMessage | null;
  connection_features: string[];
  is_fallback_mode: boolean;
}

/** The options of a manager; all may be left out. */
export interface WebSocketManagerOptions {
  /** From an attempt to `hello`, in ms; 10,000. */
  connectionTimeoutMs?: number;
  /** Whether a server that is silent for one and a half heartbeat intervals is given up; true. */
  enableHeartbeat?: boolean;
  /** The protocol's version; 1. */
  version?: number;
  /** A label; `frontend`. */
  role?: 'frontend' | 'admin' | 'test';
  backoffStrategy?: BackoffStrategy;
  /** Where the `[WS]` lines go; to the console. Null: nowhere. */
  log?: ((line: string) => void) | null;
  /** The socket's class, where the runtime has none. */
  WebSocket?: SocketConstructor;
  /** The world around it; for tests. */
  environment?: Environment;
}
