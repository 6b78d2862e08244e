// `WebSocketManager`: a connection to `/ws/client` that comes back, counts what passes, and goes on in a
// fallback mode where it can't.
//
// It must never throw out of a socket's event, nor grow: attempts, types of messages and log lines have
// their bounds here.

import { type Backoff, BackoffStrategy } from '../connection/backoff.js';
import { Driver, type Loss } from '../connection/driver.js';
import { realEnvironment } from '../connection/environment.js';
import { type Life, lifeConfig } from '../connection/life.js';
import { Events, type Unsubscribe } from '../emitter.js';
import { heartbeat, list, socketUrl } from '../wire.js';
import { lineLog } from './log.js';
import type {
  WebSocketManagerOptions,
  WSConnectionAttempt,
  WSConnectionStats,
  WSHelloMessage,
  WSMessage,
  WSState,
} from './types.js';

/** How many attempts are remembered. */
const ATTEMPTS_MAX = 10;
/** How many types of messages are counted apart; others count as `other`. */
const TYPES_MAX = 64;

/** The documented address: the base, `/ws/client` if it has no path, and the three parameters. */
export const clientUrl = (base: string, client_id: string, version = 1, role = 'frontend'): string =>
  socketUrl(base, '/ws/client', { client_id, version: `${version}`, role });

/** The connection of one client to `/ws/client`. */
export class WebSocketManager {
  readonly #driver: Driver;
  readonly #log: (words: string) => void;
  readonly #url: string;
  readonly #clientId: string;
  readonly #events = new Events<{ message: WSMessage; system: WSMessage; state: WSState }>();
  readonly #counts = new Map<string, number>();
  readonly #stats: Omit<WSConnectionStats, 'current_uptime_ms' | 'message_counts_by_type'> = {
    total_attempts: 0,
    successful_connections: 0,
    messages_received: 0,
    messages_sent: 0,
    heartbeats_received: 0,
    heartbeats_sent: 0,
    last_activity: null,
    connection_start: null,
  };
  #attempts: WSConnectionAttempt[] = [];
  #hello: WSHelloMessage | null = null;
  /** The state as it was last asked for; null when it has changed since. */
  #state: WSState | null = null;

  constructor(url: string, clientId: string, options: WebSocketManagerOptions = {}) {
    const strategy = options.backoffStrategy ?? new BackoffStrategy();
    const env = options.environment ?? realEnvironment(options.WebSocket);
    this.#log = lineLog(options.log);
    this.#url = clientUrl(url, clientId, options.version, options.role);
    this.#clientId = clientId;
    const backoff: Backoff = (attempt, random) => strategy.delayFor(attempt, random);
    const config = lifeConfig(backoff, options.connectionTimeoutMs, options.enableHeartbeat);
    this.#driver = new Driver(env, config, {
      url: () => this.#attempting(),
      message: (data) => this.#message(data),
      ping: () => this.ping(),
      failed: (loss) => this.#failed(loss),
      changed: (life, before) => this.#changed(life, before),
    });
  }

  /** Connects, or tries at once where it waits; also leaves fallback. */
  connect(): void {
    this.#driver.dispatch({ type: 'connect' });
  }

  /** Closes, and does not come back until {@link connect}. */
  disconnect(): void {
    this.#driver.dispatch({ type: 'disconnect' });
  }

  /** Closes and connects anew. */
  reconnect(): void {
    this.disconnect();
    this.connect();
  }

  /** Sends a message with a `timestamp`; false when there is no connection. */
  send(message: WSMessage): boolean {
    const text = JSON.stringify({ timestamp: this.#now(), ...message });
    const isSent = this.#driver.life.openedAt !== null && this.#driver.send(text);
    if (isSent) {
      this.#stats.last_activity = this.#now();
      this.#stats[`${kind(message)}_sent`] += 1;
      this.#state = null;
    }
    return isSent;
  }

  /** Asks for a `pong`; false when there is no connection. */
  ping(): boolean {
    return this.send({ type: 'ping' });
  }

  /** Calls back with every message that is not of the system. */
  onMessage(listener: (message: WSMessage) => unknown): Unsubscribe {
    return this.#events.on('message', listener);
  }

  /** Calls back with `hello`, `ping`, `pong`, `status` and `error`. */
  onSystemMessage(listener: (message: WSMessage) => unknown): Unsubscribe {
    return this.#events.on('system', listener);
  }

  /** Calls back when the phase, an attempt or the greeting changes. What is only counted is read by {@link getState}. */
  onStateChange(listener: (state: WSState) => unknown): Unsubscribe {
    return this.#events.on('state', listener);
  }

  /** The state; the same object until something changes. */
  getState(): WSState {
    this.#state ??= this.#snapshot();
    return this.#state;
  }

  #now(): Date {
    return new Date(this.#driver.env.wall());
  }

  #snapshot(): WSState {
    const { phase, reason: fallback_reason } = this.#driver.life;
    const last = this.#attempts.at(-1);
    const now = () => +this.#now();
    return {
      phase,
      client_id: this.#clientId,
      url: this.#url,
      stats: {
        ...this.#stats,
        get current_uptime_ms() {
          return this.connection_start ? now() - +this.connection_start : 0;
        },
        message_counts_by_type: Object.fromEntries(this.#counts),
      },
      current_attempt: last?.success === null ? last : null,
      recent_attempts: this.#attempts,
      fallback_reason,
      last_hello_message: this.#hello,
      connection_features: this.#hello?.features ?? [],
      is_fallback_mode: fallback_reason !== null,
    };
  }

  #renew(): void {
    this.#state = null;
    this.#events.emit('state', this.getState());
  }

  /** An attempt begins. Answers where to connect to. */
  #attempting(): string {
    this.#log('Attempting WebSocket connection');
    this.#stats.total_attempts += 1;
    const attempt = {
      attempt_number: this.#stats.total_attempts,
      started_at: this.#now(),
      duration_ms: null,
      success: null,
      error_class: null,
      error_message: null,
      close_code: null,
      next_delay_ms: null,
    };
    this.#attempts = [...this.#attempts, attempt].slice(-ATTEMPTS_MAX);
    this.#renew();
    return this.#url;
  }

  /** Says more about the last attempt. */
  #finish(success: boolean, more: Partial<WSConnectionAttempt> = {}): void {
    // There is one: nothing ends that has not begun.
    const last = this.#attempts.at(-1) as WSConnectionAttempt;
    const duration_ms = last.duration_ms ?? +this.#now() - +last.started_at;
    const finished = { ...last, success: last.success ?? success, duration_ms, ...more };
    this.#attempts = [...this.#attempts.slice(0, -1), finished];
  }

  #failed({ text, failure, delayMs, class: error_class }: Loss): void {
    this.#log(`Connection failed: ${text}`);
    this.#finish(false, { error_class, error_message: text, close_code: failure.code, next_delay_ms: delayMs });
    this.#renew();
  }

  #changed(life: Life, before: Life): void {
    const isUp = life.openedAt !== null;
    const wasUp = before.openedAt !== null;
    if (isUp && !wasUp) {
      this.#stats.successful_connections += 1;
      this.#stats.connection_start = this.#now();
      this.#finish(true);
    }
    if (wasUp && !isUp) {
      this.#log(`Statistics: ${JSON.stringify(this.#snapshot().stats)}`);
      this.#stats.connection_start = null;
    }
    if (life.phase !== before.phase) this.#log(`transition from ${before.phase} to ${life.phase}`);
    if (life.phase === 'fallback') this.#log('Entering fallback mode');
    // Whoever stops an attempt has not succeeded with it.
    if (life.phase === 'idle') this.#finish(false);
    this.#renew();
  }

  #message(data: unknown): void {
    this.#stats.last_activity = this.#now();
    this.#state = null;
    let message: WSMessage | undefined;
    try {
      message = JSON.parse(data as string);
    } catch {
      // It has no type, either.
    }
    if (typeof message?.type !== 'string') return this.#log('Ignored: no type');
    const { type } = message;
    const name = this.#counts.has(type) || this.#counts.size < TYPES_MAX ? type : 'other';
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    this.#stats[`${kind(message)}_received`] += 1;
    if (type === 'ping' && this.#driver.mayPong) this.send({ type: 'pong' });
    if (type === 'hello') this.#greeted(message);
    this.#events.emit(SYSTEM.includes(type) ? 'system' : 'message', message);
  }

  #greeted(message: WSMessage): void {
    const interval = heartbeat(message.heartbeat_interval_ms);
    const features = list(message.features).filter((feature) => typeof feature === 'string');
    // All else that is documented is a text but the version; and so it is shown to people.
    const rest = Object.entries(message).filter(
      ([name, value]) => typeof value === (name === 'accepted_version' ? 'number' : 'string'),
    );
    this.#hello = { ...Object.fromEntries(rest), features, heartbeat_interval_ms: interval } as WSHelloMessage;
    this.#log('Received hello message from server');
    this.#driver.dispatch({ type: 'greeted', heartbeatMs: interval });
    this.#renew();
  }
}

/** What is for the manager and not for the application. */
const SYSTEM = ['hello', 'ping', 'pong', 'status', 'error'];
/** What it counts as. */
const kind = ({ type }: WSMessage) => (type === 'ping' || type === 'pong' ? 'heartbeats' : 'messages');
