// `WebSocketManager`: a connection to `/ws/client` that comes back, counts what passes, and goes on in a
// fallback mode where it can't.
//
// It must never throw out of a socket's event, nor grow: attempts, types of messages and log lines have
// their bounds here.

import { BackoffStrategy } from '../connection/backoff.js';
import { Driver, type Loss } from '../connection/driver.js';
import { type Environment, realEnvironment } from '../connection/environment.js';
import type { Life, WSConnectionPhase } from '../connection/life.js';
import { Emitter, type Unsubscribe } from '../emitter.js';
import { heartbeat } from '../wire.js';
import { LineLog } from './log.js';
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
/** How often fallback tries again. */
const PROBE_MS = 60_000;
/** After how long a connection has proved itself. */
const STABLE_AFTER_MS = 20_000;

/** The documented address of a manager: the base, `/ws/client` and the three parameters. */
export function clientUrl(base: string, clientId: string, version = 1, role = 'frontend'): string {
  const url = new URL(base.replace(/^http/i, 'ws'));
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = path.endsWith('/ws/client') ? path : `${path}/ws/client`;
  url.hash = '';
  url.searchParams.set('client_id', clientId);
  url.searchParams.set('version', String(version));
  url.searchParams.set('role', role);
  return url.href;
}

/** The connection of one client to `/ws/client`. */
export class WebSocketManager {
  readonly #env: Environment;
  readonly #driver: Driver;
  readonly #log: LineLog;
  readonly #url: string;
  readonly #clientId: string;
  readonly #messages = new Emitter<WSMessage>();
  readonly #system = new Emitter<WSMessage>();
  readonly #states = new Emitter<WSState>();
  readonly #counts = new Map<string, number>();
  #stats = { attempts: 0, successes: 0, received: 0, sent: 0, heard: 0, beats: 0 };
  #lastActivity: Date | null = null;
  #connectionStart: Date | null = null;
  #attempts: WSConnectionAttempt[] = [];
  #current: WSConnectionAttempt | null = null;
  #hello: WSHelloMessage | null = null;
  #state: WSState | null = null;
  #disabled: string | null = null;

  constructor(url: string, clientId: string, options: WebSocketManagerOptions = {}) {
    const { connectionTimeoutMs = 10_000, enableHeartbeat = true, version, role } = options;
    const strategy = options.backoffStrategy ?? new BackoffStrategy();
    this.#env = options.environment ?? realEnvironment(options.WebSocket);
    this.#log = new LineLog(options.log);
    this.#url = clientUrl(url, clientId, version, role);
    this.#clientId = clientId;
    const config = {
      connectTimeoutMs: connectionTimeoutMs,
      heartbeat: enableHeartbeat,
      backoff: (attempt: number, random: number) => strategy.delayFor(attempt, random),
      stableAfterMs: STABLE_AFTER_MS,
      probeMs: PROBE_MS,
    };
    this.#driver = new Driver(this.#env, config, {
      url: () => this.#url,
      attempting: () => this.#attempting(),
      opened: () => {},
      message: (data) => this.#message(data),
      ping: () => this.ping(),
      failed: (loss) => this.#failed(loss),
      changed: (life, before) => this.#changed(life, before),
    });
  }

  /** Connects, or tries at once where it waits; also leaves fallback. */
  connect(): void {
    if (this.#disabled === null) this.#driver.connect();
  }

  /** Closes, and does not come back until {@link connect}. */
  disconnect(): void {
    this.#driver.disconnect();
  }

  /** Closes and connects anew. */
  reconnect(): void {
    this.disconnect();
    this.connect();
  }

  /** Sends a message with a `timestamp`; false when there is no connection. */
  send(message: WSMessage): boolean {
    const wall = new Date(this.#env.wall());
    const text = JSON.stringify({ timestamp: wall.toISOString(), ...message });
    if (!this.#driver.isUp || !this.#driver.send(text)) return false;
    this.#lastActivity = wall;
    if (message.type === 'ping' || message.type === 'pong') this.#stats.beats += 1;
    else this.#stats.sent += 1;
    this.#renew();
    return true;
  }

  /** Asks for a `pong`; false when there is no connection. */
  ping(): boolean {
    return this.send({ type: 'ping' });
  }

  /** Asks for a `status`, which {@link onSystemMessage} hears. */
  requestStatus(): boolean {
    return this.send({ type: 'status' });
  }

  /** Calls back with every message that is not of the system. */
  onMessage(listener: (message: WSMessage) => unknown): Unsubscribe {
    return this.#messages.on(listener);
  }

  /** Calls back with `hello`, `ping`, `pong`, `status` and `error`. */
  onSystemMessage(listener: (message: WSMessage) => unknown): Unsubscribe {
    return this.#system.on(listener);
  }

  /** Calls back with every new state. */
  onStateChange(listener: (state: WSState) => unknown): Unsubscribe {
    return this.#states.on(listener);
  }

  /** The state; the same object until something changes. */
  getState(): WSState {
    this.#state ??= this.#snapshot();
    return this.#state;
  }

  get phase(): WSConnectionPhase {
    return this.getState().phase;
  }

  /** Keeps it in fallback, for whoever has switched the connection off. */
  disable(reason: string): void {
    this.disconnect();
    this.#disabled = reason;
    this.#renew();
  }

  #snapshot(): WSState {
    const { phase, reason } = this.#driver.life;
    const isDisabled = this.#disabled !== null;
    return {
      phase: isDisabled ? 'fallback' : phase,
      client_id: this.#clientId,
      url: this.#url,
      stats: this.#snapshotStats(),
      current_attempt: this.#current && { ...this.#current },
      recent_attempts: this.#attempts.map((attempt) => ({ ...attempt })),
      fallback_reason: this.#disabled ?? reason,
      last_hello_message: this.#hello,
      connection_features: this.#hello?.features ?? [],
      is_fallback_mode: isDisabled || phase === 'fallback' || reason !== null,
    };
  }

  #snapshotStats(): WSConnectionStats {
    const start = this.#connectionStart;
    const env = this.#env;
    return {
      total_attempts: this.#stats.attempts,
      successful_connections: this.#stats.successes,
      get current_uptime_ms() {
        return start ? Math.max(0, env.wall() - start.getTime()) : 0;
      },
      messages_received: this.#stats.received,
      messages_sent: this.#stats.sent,
      heartbeats_received: this.#stats.heard,
      heartbeats_sent: this.#stats.beats,
      last_activity: this.#lastActivity,
      connection_start: start,
      message_counts_by_type: Object.fromEntries(this.#counts),
    };
  }

  #renew(): void {
    this.#state = null;
    this.#states.emit(this.getState());
  }

  #attempting(): void {
    this.#log.line('Attempting WebSocket connection');
    this.#stats.attempts += 1;
    this.#current = {
      attempt_number: this.#stats.attempts,
      started_at: new Date(this.#env.wall()),
      duration_ms: null,
      success: null,
      error_class: null,
      error_message: null,
      close_code: null,
      next_delay_ms: null,
    };
    this.#attempts = [...this.#attempts, this.#current].slice(-ATTEMPTS_MAX);
  }

  /** Says how the attempt under way, or the last one's connection, ended. */
  #finish(success: boolean, loss?: Loss): void {
    const last = this.#current ?? this.#attempts.at(-1);
    if (!last) return;
    if (this.#current) {
      last.success = success;
      last.duration_ms = this.#env.wall() - last.started_at.getTime();
    }
    this.#current = null;
    if (!loss) return;
    last.error_class = loss.class;
    last.error_message = loss.text;
    last.close_code = loss.failure.code;
    last.next_delay_ms = loss.delayMs;
  }

  #failed(loss: Loss): void {
    this.#log.line(`Connection failed: ${loss.text}`);
    this.#finish(false, loss);
    this.#renew();
  }

  #changed(life: Life, before: Life): void {
    if (life.phase !== before.phase) {
      this.#log.line(`transition from ${before.phase} to ${life.phase}`);
      if (life.phase === 'fallback') this.#log.line('Entering fallback mode');
    }
    if (life.openedAt !== null && before.openedAt === null) {
      this.#stats.successes += 1;
      this.#connectionStart = new Date(this.#env.wall());
      this.#finish(true);
    }
    if (life.openedAt === null && before.openedAt !== null) this.#ended();
    // Whoever stops an attempt has not failed at it.
    if (life.phase === 'idle') this.#current = null;
    this.#renew();
  }

  #ended(): void {
    const { current_uptime_ms: uptime } = this.#snapshotStats();
    const { received, sent, heard, beats } = this.#stats;
    this.#log.line(
      `Statistics: ${received} messages received, ${sent} sent, heartbeats ${heard} received, ${beats} sent, uptime ${Math.round(uptime)} ms`,
    );
    this.#connectionStart = null;
  }

  #message(data: unknown): void {
    this.#lastActivity = new Date(this.#env.wall());
    const message = parse(data);
    if (!message) {
      this.#log.line('Ignored a message that is no JSON object with a type');
      return this.#renew();
    }
    this.#count(message.type);
    switch (message.type) {
      case 'hello':
        return this.#greeted(message);
      case 'ping':
        this.#stats.heard += 1;
        this.send({ type: 'pong' });
        return this.#system.emit(message);
      case 'pong':
        this.#stats.heard += 1;
        this.#renew();
        return this.#system.emit(message);
      case 'status':
      case 'error':
        this.#stats.received += 1;
        this.#renew();
        return this.#system.emit(message);
      default:
        this.#stats.received += 1;
        this.#renew();
        this.#messages.emit(message);
    }
  }

  #greeted(message: WSMessage): void {
    const features = Array.isArray(message.features) ? message.features.filter((f) => typeof f === 'string') : [];
    const interval = heartbeat(message.heartbeat_interval_ms);
    this.#hello = { ...(message as unknown as WSHelloMessage), features, heartbeat_interval_ms: interval };
    this.#stats.received += 1;
    this.#log.line('Received hello message from server');
    this.#driver.greeted(interval);
    this.#renew();
    this.#system.emit(message);
  }

  #count(type: string): void {
    const name = this.#counts.has(type) || this.#counts.size < TYPES_MAX ? type : 'other';
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }
}

function parse(data: unknown): WSMessage | null {
  try {
    const message = JSON.parse(data as string);
    return typeof message?.type === 'string' ? message : null;
  } catch {
    return null;
  }
}
