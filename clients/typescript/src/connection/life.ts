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

/** What there is to wait for; at most one timer of each name runs. */
export type TimerName = 'connect' | 'retry' | 'silence' | 'probe';

/** What happens. `at` is in ms on any clock that does not go back; `random` is in [0, 1). */
export type LifeEvent = { readonly at: number; readonly random?: number } & (
  | { readonly type: 'connect' | 'disconnect' | 'opened' | 'heard' }
  | { readonly type: 'greeted'; readonly heartbeatMs: number }
  | { readonly type: 'timer'; readonly name: TimerName }
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

/** What to do, in this order. Setting a timer takes the place of the one of that name. */
export type Effect =
  | { readonly do: 'open' }
  | { readonly do: 'close'; readonly code: number }
  | { readonly do: 'ping' }
  | { readonly do: 'set'; readonly name: TimerName; readonly ms: number }
  | { readonly do: 'cancel'; readonly name: TimerName }
  | { readonly do: 'failed'; readonly failure: Failure; readonly delayMs: number | null };

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

type Handler<E extends LifeEvent = LifeEvent> = (life: Life, event: E, config: LifeConfig) => Step;
/** `timer` events go by the timer's name. */
type EventName = Exclude<LifeEvent['type'], 'timer'> | TimerName;

const cancel = (...names: TimerName[]): Effect[] => names.map((name) => ({ do: 'cancel', name }));

/** Begins an attempt; there must be no socket. */
function dial(life: Life, config: LifeConfig, changes: Partial<Life>, before: Effect[] = []): Step {
  const next: Life = { ...life, socket: 'opening', ordered: false, final: false, ...changes };
  return [next, [...before, { do: 'open' }, { do: 'set', name: 'connect', ms: config.connectTimeoutMs }]];
}

/** Whoever asks for it starts afresh. */
const start: Handler = (life, _, config) =>
  dial(life, config, { phase: 'connecting', attempts: 0, reason: null }, cancel('probe'));

const stop: Handler = (life) => {
  const close: Effect[] = life.socket === 'none' ? [] : [{ do: 'close', code: 1000 }];
  return [IDLE, [...cancel('connect', 'retry', 'silence', 'probe'), ...close]];
};

const opened: Handler = (life, event) => [{ ...life, socket: 'open', heardAt: event.at }, []];

const heard: Handler = (life, event) => {
  const phase = life.phase === 'degraded' ? 'open' : life.phase;
  return [{ ...life, phase, heardAt: event.at }, []];
};

/** When silence begins to be suspicious, and when it ends the connection: 1.25 and 1.5 intervals. */
const suspicious = (life: Life): number => life.heartbeatMs * 1.25;
const dead = (life: Life): number => life.heartbeatMs * 1.5;

const greeted: Handler<LifeEvent & { type: 'greeted' }> = (life, event, config) => {
  const up = life.openedAt !== null;
  const next: Life = {
    ...life,
    phase: 'open',
    openedAt: up ? life.openedAt : event.at,
    heardAt: event.at,
    heartbeatMs: event.heartbeatMs,
    reason: null,
  };
  const effects = up ? [] : cancel('connect');
  if (config.heartbeat) effects.push({ do: 'set', name: 'silence', ms: suspicious(next) });
  return [next, effects];
};

/** Looks how long the server has been silent. Phones and laptops that slept find out at once. */
const listen: Handler = (life, event, config) => {
  if (!config.heartbeat) return [life, []];
  const silent = event.at - life.heardAt;
  if (silent >= dead(life)) return lose(life, event, config, timedOut('heartbeat', true), true);
  if (silent < suspicious(life)) {
    return [life, [{ do: 'set', name: 'silence', ms: suspicious(life) - silent }]];
  }
  const set: Effect = { do: 'set', name: 'silence', ms: dead(life) - silent };
  return [{ ...life, phase: 'degraded' }, [{ do: 'ping' }, set]];
};

const timedOut = (timeout: 'connect' | 'heartbeat', isOpen: boolean): Failure => ({
  code: 1006,
  reason: `${timeout} timeout`,
  opened: isOpen,
  timeout,
});

type End = LifeEvent & { type: 'closed' | 'abandon' };

const closed: Handler<End> = (life, event, config) => {
  const failure = { code: event.code, reason: event.reason, opened: life.socket === 'open' };
  return lose(life, event, config, failure, event.type === 'abandon');
};

/** The socket is gone, or has to go: when to come back, if at all. */
function lose(life: Life, event: LifeEvent, config: LifeConfig, failure: Failure, isOurs: boolean): Step {
  const { after = null, again = false } = event as Partial<End>;
  const wasUp = life.openedAt !== null;
  const isStable = life.openedAt !== null && event.at - life.openedAt >= config.stableAfterMs;
  const attempts = isStable ? 0 : life.attempts;
  const effects = cancel('connect', 'silence');
  if (isOurs) effects.push({ do: 'close', code: 1000 });
  const gone: Life = { ...life, socket: 'none', openedAt: null, attempts };
  if (!again && !shouldReconnect(failure.code)) {
    effects.push({ do: 'failed', failure, delayMs: null });
    if (failure.code === 1000) return [IDLE, effects];
    return [{ ...gone, phase: 'fallback', reason: describe(failure), final: true }, effects];
  }
  const own = config.backoff(attempts, event.random ?? 0);
  const delayMs = own === null ? null : (after ?? own);
  effects.push({ do: 'failed', failure, delayMs });
  if (delayMs === null) {
    effects.push({ do: 'set', name: 'probe', ms: config.probeMs });
    return [{ ...gone, phase: 'fallback', reason: life.reason ?? describe(failure), final: false }, effects];
  }
  effects.push({ do: 'set', name: 'retry', ms: delayMs });
  const phase = wasUp ? 'reconnecting' : 'failed';
  return [{ ...gone, phase, attempts: attempts + 1, ordered: after !== null }, effects];
}

const tooLong: Handler = (life, event, config) =>
  lose(life, event, config, timedOut('connect', life.socket === 'open'), true);

/** The wait is over. */
const again: Handler = (life, _, config) => dial(life, config, { phase: 'reconnecting' }, cancel('retry'));
const now: Handler = (life, _, config) =>
  dial(life, config, { phase: 'reconnecting', attempts: 0 }, cancel('retry'));
const wake: Handler = (life, event, config) => (life.ordered ? [life, []] : again(life, event, config));

/** One attempt; when it fails, fallback goes on. */
const probe: Handler = (life, _, config) =>
  life.final ? [life, []] : dial(life, config, { phase: 'reconnecting' }, cancel('probe'));
const online: Handler<LifeEvent & { type: 'wake' }> = (life, event, config) => {
  if (life.final || event.by !== 'online') return [life, []];
  return dial(life, config, { phase: 'reconnecting', attempts: 0 }, cancel('probe'));
};

type Row = { readonly [E in EventName]?: Handler };
/** With a socket on its way, and while one waits for the next. What is not there changes nothing. */
const DIALING: Row = { disconnect: stop, opened, heard, greeted, closed, abandon: closed, connect: tooLong } as Row;
const WAITING: Row = { disconnect: stop, retry: again, wake } as Row;
const UP: Row = { disconnect: stop, heard, greeted, closed, abandon: closed, silence: listen, wake: listen } as Row;

function row(life: Life): Row {
  switch (life.phase) {
    case 'connecting':
    case 'reconnecting':
      return life.socket === 'none' ? WAITING : DIALING;
    case 'failed':
      return WAITING;
    case 'open':
    case 'degraded':
      return UP;
    case 'fallback':
      return { disconnect: stop, probe, wake: online } as Row;
    case 'idle':
      return {};
  }
}

/** The next state and the effects of an event. An event that means nothing in a phase changes nothing. */
export function transition(life: Life, event: LifeEvent, config: LifeConfig): Step {
  if (event.type === 'connect') {
    if (life.socket !== 'none') return [life, []];
    return life.phase === 'idle' || life.phase === 'fallback' ? start(life, event, config) : now(life, event, config);
  }
  const name: EventName = event.type === 'timer' ? event.name : event.type;
  return row(life)[name]?.(life, event, config) ?? [life, []];
}
