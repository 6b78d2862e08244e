// `RoomkeeperClient`: protocol v2 for applications. It joins the connection, the session and whoever knows
// the token.
//
// It must never put a token into an address, which ends up in logs, nor ask for two tokens at once.

import { fullJitter } from '../connection/backoff.js';
import { Driver } from '../connection/driver.js';
import { type Environment, realEnvironment, type SocketConstructor } from '../connection/environment.js';
import { lifeConfig } from '../connection/life.js';
import type { Unsubscribe } from '../emitter.js';
import type { RefreshedFrame, StatusFrame } from '../protocol.js';
import { socketUrl } from '../wire.js';
import type { Cancel, Frame } from './requests.js';
import type { Room } from './room.js';
import { freshName, Session } from './session.js';
import type { ClientEvents, ClientState } from './types.js';

/** After how many tokens in a row that could not be got the client stops. */
const TOKEN_FAILURES_MAX = 5;
/** How long a token may take to come, in ms: more than one attempt may wait for the same. */
const TOKEN_TIMEOUT_MS = 30_000;
/** When a refresh that failed for the moment is tried again, in ms. */
const REFRESH_AGAIN_MS = 5000;

/** A token, or how to get a fresh one. Null: stay anonymous. */
export type TokenSource = string | null | (() => string | null | Promise<string | null>);

/** The options of a client. */
export interface ClientOptions {
  /** `wss://host/ws/v2/connect`; without a path the protocol's own path is taken. */
  url: string;
  token?: TokenSource;
  /** A label to be recognised by over reconnects, to which an anonymous client's `msgId`s belong; made up if it is left out. */
  clientId?: string;
  /** From an attempt to `hello`, in ms; 10,000. */
  connectTimeoutMs?: number;
  /** How long a request other than a publish waits for its answer, in ms; 10,000. */
  requestTimeoutMs?: number;
  /** How long a publish is tried, reconnects included, in ms; 60,000. */
  publishTimeoutMs?: number;
  /** How many publishes wait for their acknowledgement; 1,024. */
  outboxMax?: number;
  /** How many characters they may have together; 8,388,608. */
  outboxCharactersMax?: number;
  /** Full jitter: the bound of the first wait and of any wait, in ms (200 and 20,000), and how many attempts (no limit). */
  backoff?: { baseMs?: number; capMs?: number; attemptsMax?: number | null };
  /** The socket's class, where the runtime has none (Node 20). */
  WebSocket?: SocketConstructor;
  /** The world around it; for tests. */
  environment?: Environment;
}

/** A client of protocol v2. It connects when told to, and comes back by itself until it is closed. */
export class RoomkeeperClient {
  /** The world around it. */
  readonly env: Environment;
  readonly #driver: Driver;
  readonly #session: Session;
  readonly #source: Exclude<TokenSource, string | null> | null = null;
  readonly #url: string;
  /** The token that is being got, for whoever asks meanwhile. */
  #fetching: Promise<string | null> | null = null;
  #failures = 0;
  /** Whether the token at hand was got for this attempt, and whether it is known to be of no use. */
  #isFresh = false;
  #isStale = true;
  /** Stops the timer that waits for a token to come, and that which waits to ask for one to refresh with. */
  #endFetch: Cancel = () => {};
  #endWait: Cancel = () => {};
  #state: ClientState = { phase: 'idle', reason: null };

  constructor(options: ClientOptions) {
    const { token = null, backoff = {} } = options;
    // A server that made a name up for each connection would take a repeated publish for another client's.
    const client_id = options.clientId ?? freshName();
    const env = options.environment ?? realEnvironment(options.WebSocket);
    this.env = env;
    // Addresses end up in logs.
    if (/[?&]token=/.test(options.url)) throw new TypeError('token in the URL');
    this.#url = socketUrl(options.url, '/ws/v2/connect', { client_id });
    const jitter = fullJitter(backoff.baseMs, backoff.capMs, backoff.attemptsMax);
    const config = lifeConfig(jitter, options.connectTimeoutMs);
    const driver = new Driver(env, config, {
      url: () => this.#prepare(),
      opened: () => session.opened(),
      message: (data) => session.text(data),
      ping: () => void session.say({ type: 'ping' }),
      failed: (loss) => {
        session.lost();
        session.events.emit('lost', loss);
      },
      changed: ({ phase, reason, socket }, before) => {
        if (phase === 'open' && before.openedAt === null) {
          this.#failures = 0;
          this.#isFresh = false;
        }
        if (socket === 'none') {
          this.#endWait();
          session.lost();
        }
        this.#state = { phase, reason };
        session.events.emit('state', this.#state);
      },
      explain: (code) => {
        const said = session.explain(code);
        return { ...said, again: this.#mayRetry(said?.code ?? code) };
      },
    });
    const session = new Session(driver, {
      requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
      publishTimeoutMs: options.publishTimeoutMs ?? 60_000,
      outboxMax: options.outboxMax ?? 1024,
      outboxCharactersMax: options.outboxCharactersMax ?? 8_388_608,
    });
    this.#driver = driver;
    this.#session = session;
    if (typeof token === 'function') this.#source = token;
    else this.setToken(token);
    this.on('tokenExpiring', () => this.#refresh());
  }

  /** Connects, or tries at once where it waits. */
  connect(): void {
    if (this.#session.stage !== 'closed') this.#driver.dispatch({ type: 'connect' });
  }

  /** Closes until {@link connect}. Rooms and unanswered publishes are kept. */
  disconnect(): void {
    this.#driver.dispatch({ type: 'disconnect' });
  }

  /** Ends it for good: every promise is settled, no timer is left. */
  close(): void {
    this.#session.close();
    this.disconnect();
    this.#endFetch();
  }

  /** How the connection stands; the same object until that changes. */
  get state(): ClientState {
    return this.#state;
  }

  /** How many publishes wait for their acknowledgement. */
  get outboxSize(): number {
    return this.#session.requests.publishes;
  }

  /** The room of this name: always the same object. It is not joined by that. */
  room<T = unknown>(name: string): Room<T> {
    return this.#session.room(name) as unknown as Room<T>;
  }

  on<K extends keyof ClientEvents>(name: K, listener: (value: ClientEvents[K]) => unknown): Unsubscribe {
    return this.#session.events.on(name, listener);
  }

  /** Sends a command of the server's host; resolves with the frame that answers its `id`. */
  request(command: { type: string; [field: string]: unknown }): Promise<Frame> {
    return this.#session.ask(null, command);
  }

  /** How the connection stands, as the server sees it. */
  status(): Promise<StatusFrame> {
    return this.#session.ask('status', { type: 'status' });
  }

  /** Resolves when the server has answered. */
  ping(): Promise<void> {
    return this.#session.ask('pong', { type: 'ping' });
  }

  /** Shows a fresh token of the same user on this connection. */
  async refresh(token: string): Promise<RefreshedFrame> {
    const frame = await this.#session.ask<RefreshedFrame>('refreshed', { type: 'refresh', token });
    this.#session.token = token;
    this.#session.ticket = frame.session;
    return frame;
  }

  /** Takes a token for the next connection; it may be another user's. */
  setToken(token: string | null): void {
    const session = this.#session;
    session.token = token;
    // It would come before the token.
    session.ticket = null;
    this.#isStale = false;
  }

  /** The address of the next attempt, once there is a token for it. */
  #prepare(): string | Promise<string> {
    this.#isFresh = !!this.#source && this.#isStale;
    if (!this.#isFresh) return this.#url;
    return this.#fetch().then((token) => {
      this.setToken(token);
      return this.#url;
    });
  }

  #fetch(): Promise<string | null> {
    this.#fetching ??= new Promise<string | null>((resolve, reject) => {
      this.#endFetch = this.#session.timer(TOKEN_TIMEOUT_MS, () => reject('timed_out'));
      Promise.resolve().then(this.#source).then(resolve, reject);
    })
      .catch((error: unknown) => {
        this.#failures += 1;
        const reason = `no token: ${error}`;
        throw { closed: { code: this.#failures >= TOKEN_FAILURES_MAX ? 3500 : 3004, reason } };
      })
      .finally(() => {
        this.#endFetch();
        this.#fetching = null;
      });
    return this.#fetching;
  }

  /** The token ends soon. */
  async #refresh(): Promise<void> {
    if (!this.#source || this.#fetching) return;
    const isOnline = () => this.#session.stage === 'online';
    this.#endWait();
    try {
      const token = await this.#fetch();
      if (token === null) return;
      if (isOnline()) await this.refresh(token);
      // It serves the next attempt.
      else this.setToken(token);
    } catch {
      // Until the server ends the connection with 3004 there is time for another try.
      if (isOnline()) this.#endWait = this.#session.timer(REFRESH_AGAIN_MS, () => void this.#refresh());
    }
  }

  /** Close codes that another token, or a shorter `connect`, may get around. */
  #mayRetry(code: number): boolean {
    const isTooLong = code === 1009 && this.#session.hasResumed;
    // Of a server that takes less than the usual: the next time without rooms.
    if (isTooLong) this.#session.forgetResume();
    if ([3004, 3500, 3507].includes(code)) {
      this.#isStale = true;
      this.#session.ticket = null;
    }
    return isTooLong || (code === 3500 && !!this.#source && !this.#isFresh);
  }
}
