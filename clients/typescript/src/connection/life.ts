// The life of a connection as a pure reducer: a state and an event give the next state and what to do.
//
// It must never touch a socket, a timer, a clock or a random number: `at` and `random` come with the
// events, and whoever drives it carries the effects out. There is one socket at most: `open` is only
// asked for where there is none.

import { shouldReconnect } from '../protocol.js';
import type { Backoff } from './backoff.js';
import { describe, type Failure } from './classify.js';

/** The documented phases. */
export type WSConnectionPhase = 'idle' | 'connecting' | 'open' | 'degraded' | 'reconnecting' | 'failed' | 'fallback';

/** Where a connection is in its life. */
export interface Life {
  readonly phase: WSConnectionPhase;
  /** The one socket: none, being opened, or open. */
  readonly socket: 'none' | 'opening' | 'open';
  /** How many reconnection attempts were begun in a row. */
  readonly attempts: number;
  /** Whether the server said when to come back: then nothing else makes it earlier but `connect`. */
  readonly ordered: boolean;
  /** When the phase `open` was reached; null while it is neither `open` nor `degraded`. */
  readonly openedAt: number | null;
  /** When something was last heard. */
  readonly heardAt: number;
  /** How long the server is silent at most before it pings, in ms. */
  readonly heartbeatMs: number;
  /** Why it fell back; kept while a probe is under way. */
  readonly reason: string | null;
  /** In fallback: whether only `connect` leads out, since the server said not to come back. */
  readonly final: boolean;
}

/** What does not change in a connection's life. */
export interface LifeConfig {
  /** From an attempt to `hello`, in ms. */
  connectTimeoutMs: number;
  /** Whether silence of the server is looked at. */
  heartbeat: boolean;
  backoff: Backoff;
  /** How long a connection must have stood for the next loss to count as the first, in ms. */
  stableAfterMs: number;
  /** How often fallback tries again, in ms. */
  probeMs: number;
}

/** How the clients' connections live: after 20 s one has proved itself, and fallback tries again each minute. */
export const lifeConfig = (backoff: Backoff, connectTimeoutMs = 10_000, heartbeat = true): LifeConfig => ({
  connectTimeoutMs,
  heartbeat,
  backoff,
  stableAfterMs: 20_000,
  probeMs: 60_000,
});

/** What happens. `at` is in ms on any clock that does not go back; `random` is in [0, 1). */
export type LifeEvent = { readonly at: number; readonly random?: number } & (
  | { readonly type: 'connect' | 'disconnect' | 'opened' | 'heard' | 'timer' }
  | { readonly type: 'greeted'; readonly heartbeatMs: number }
  | { readonly type: 'wake'; readonly by: 'online' | 'visible' }
  /** The socket is gone (`closed`), or is to be given up (`abandon`). */
  | {
      readonly type: 'closed' | 'abandon';
      readonly code: number;
      readonly reason: string;
      /** After how many ms the server wants the client back. */
      readonly after?: number | null;
      /** Overrules what the code says about coming back. */
      readonly again?: boolean;
    }
);

/**
 * What to do, in this order. There is one timer: setting it takes the place of the one before, null stops
 * it. `failed` tells how it ended, and when the next attempt comes by itself.
 */
export type Effect =
  | readonly ['open']
  | readonly ['close']
  | readonly ['ping']
  | readonly ['timer', number | null]
  | readonly ['failed', Failure, number | null];

/** The next state and what to do. */
export type Step = readonly [Life, readonly Effect[]];

/** Before anything has happened. */
export const IDLE: Life = {
  phase: 'idle',
  socket: 'none',
  attempts: 0,
  ordered: false,
  openedAt: null,
  heardAt: 0,
  heartbeatMs: 0,
  reason: null,
  final: false,
};

/** Without an answer it changes nothing. */
type Handler = (life: Life, event: LifeEvent, config: LifeConfig) => Step | null;
type Ending = Omit<Failure, 'opened'>;
type End = LifeEvent & { type: 'closed' | 'abandon' };

/** Begins an attempt; there must be no socket. */
const dial = (life: Life, config: LifeConfig, changes: Partial<Life>): Step => [
  { ...life, phase: 'reconnecting', socket: 'opening', ordered: false, final: false, ...changes },
  [['open'], ['timer', config.connectTimeoutMs]],
];

/** Whoever asks for it starts afresh. */
const start: Handler = (life, _, config) => dial(life, config, { phase: 'connecting', attempts: 0, reason: null });

const stop: Handler = (life) => [IDLE, life.socket === 'none' ? [['timer', null]] : [['close'], ['timer', null]]];

const opened: Handler = (life, event) => [{ ...life, socket: 'open', heardAt: event.at }, []];

const heard: Handler = (life, event) => [
  { ...life, phase: life.phase === 'degraded' ? 'open' : life.phase, heardAt: event.at },
  [],
];

const greeted: Handler = (life, event, config) => {
  // Of an earlier connection.
  if (life.socket !== 'open') return null;
  const { at, heartbeatMs } = event as LifeEvent & { type: 'greeted' };
  const openedAt = life.openedAt ?? at;
  const next: Life = { ...life, phase: 'open', openedAt, heardAt: at, heartbeatMs, reason: null };
  return [next, [['timer', config.heartbeat ? heartbeatMs * SUSPICIOUS : null]]];
};

/** After how many heartbeat intervals silence is suspicious, and after how many it ends the connection. */
const SUSPICIOUS = 1.25;
const DEAD = 1.5;

/** Looks how long the server has been silent. Phones and laptops that slept find out at once. */
const listen: Handler = (life, event, config) => {
  const silent = event.at - life.heardAt;
  const left = (intervals: number) => life.heartbeatMs * intervals - silent;
  if (!config.heartbeat) return null;
  if (left(DEAD) <= 0) return lose(life, event, config, timedOut('heartbeat'), true);
  if (left(SUSPICIOUS) > 0) return [life, [['timer', left(SUSPICIOUS)]]];
  return [{ ...life, phase: 'degraded' }, [['ping'], ['timer', left(DEAD)]]];
};

/** The network was away and is back. Whether the connection is, too, a ping shows, before it would be due. */
const doubt: Handler = (life, event, config) =>
  listen({ ...life, heardAt: Math.min(life.heardAt, event.at - life.heartbeatMs * SUSPICIOUS) }, event, config);

const timedOut = (timeout: 'connect' | 'heartbeat'): Ending => ({ code: 1006, reason: '', timeout });

const closed: Handler = (life, event, config) => {
  const { code, reason, type } = event as End;
  return lose(life, event, config, { code, reason }, type === 'abandon');
};

/** The socket is gone, or has to go: when to come back, if at all. */
function lose(life: Life, event: LifeEvent, config: LifeConfig, ending: Ending, isOurs: boolean): Step {
  const failure: Failure = { ...ending, opened: life.socket === 'open' };
  const { after = null, again = false } = event as Partial<End>;
  const { openedAt } = life;
  const attempts = openedAt !== null && event.at - openedAt >= config.stableAfterMs ? 0 : life.attempts;
  const gone: Life = { ...life, socket: 'none', openedAt: null, attempts };
  const end = (next: Life, waitMs: number | null, delayMs: number | null = null): Step => [
    next,
    [...(isOurs ? [['close'] as const] : []), ['timer', waitMs], ['failed', failure, delayMs]],
  ];
  if (!again && !shouldReconnect(failure.code)) {
    if (failure.code === 1000) return end(IDLE, null);
    return end({ ...gone, phase: 'fallback', reason: describe(failure), final: true }, null);
  }
  const own = config.backoff(attempts, event.random ?? 0);
  if (own === null) {
    return end({ ...gone, phase: 'fallback', reason: life.reason ?? describe(failure) }, config.probeMs);
  }
  const delayMs = after ?? own;
  const phase = openedAt === null ? 'failed' : 'reconnecting';
  return end({ ...gone, phase, attempts: attempts + 1, ordered: after !== null }, delayMs, delayMs);
}

const tooLong: Handler = (life, event, config) => lose(life, event, config, timedOut('connect'), true);

/** The next attempt. In fallback: a probe; when it fails, fallback goes on. */
const again: Handler = (life, _, config) => dial(life, config, {});
/** The same, with the attempts counted anew. */
const afresh: Handler = (life, _, config) => dial(life, config, { attempts: 0 });

/** Whoever asks for it while it is under way: with the attempts counted anew, too. */
const renew: Handler = (life) => [{ ...life, attempts: 0, reason: null }, []];

const wake: Handler = (life, event, config) => (life.ordered ? null : again(life, event, config));
/** By phase what an event means; what is not there changes nothing. */
type Row = { readonly [E in Exclude<LifeEvent['type'], 'wake'> | 'online' | 'visible']?: Handler };
const ENDING: Row = { disconnect: stop, closed, abandon: closed };
const DIALING: Row = { ...ENDING, connect: renew, opened, heard, greeted, timer: tooLong };
/** Where the server has said to stay. */
const STOPPED: Row = { disconnect: stop, connect: start };
const WAITING: Row = { disconnect: stop, connect: afresh, timer: again, online: wake, visible: wake };
const UP: Row = { ...ENDING, heard, greeted, timer: listen, online: doubt, visible: listen };
const TABLE: { readonly [P in WSConnectionPhase]: Row } = {
  idle: { connect: start },
  connecting: DIALING,
  open: UP,
  degraded: UP,
  reconnecting: DIALING,
  failed: WAITING,
  // By a probe each minute, and when the network is back.
  fallback: { ...STOPPED, timer: again, online: afresh },
};

/** The next state and the effects of an event. An event that means nothing in a phase changes nothing. */
export function transition(life: Life, event: LifeEvent, config: LifeConfig): Step {
  const isWaiting = life.phase === 'reconnecting' && life.socket === 'none';
  const row = life.final ? STOPPED : isWaiting ? WAITING : TABLE[life.phase];
  return row[event.type === 'wake' ? event.by : event.type]?.(life, event, config) ?? [life, []];
}
