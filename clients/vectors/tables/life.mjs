// What each event means in each state of a connection, written down by hand: the reducer is held to this.
// It must never be made from a client's code.

const base = {
  phase: 'idle', socket: 'none', attempts: 0, ordered: false, openedAt: null, heardAt: 0, heartbeatMs: 0,
  reason: null, final: false,
};
const up = { ...base, socket: 'open', openedAt: 1000, heardAt: 2000, heartbeatMs: 25000, attempts: 2 };

/** How the connections of these cases are set up. */
export const config = {
  connectTimeoutMs: 10000, heartbeat: true, stableAfterMs: 20000, probeMs: 60000,
  backoff: { baseDelaysMs: [1000, 2000, 4000, 8000, 12000], capDelayMs: 12000, jitterRatio: 0.2, maxAttempts: 8 },
};

/** The states that events come in. */
export const states = {
  idle: base,
  connecting: { ...base, phase: 'connecting', socket: 'opening' },
  'connecting, socket open': { ...base, phase: 'connecting', socket: 'open', heardAt: 9000 },
  open: { ...up, phase: 'open' },
  'open, stable': { ...up, phase: 'open', openedAt: -20000 },
  degraded: { ...up, phase: 'degraded', heardAt: -22000 },
  'reconnecting, waiting': { ...base, phase: 'reconnecting', attempts: 1, heardAt: 2000, heartbeatMs: 25000 },
  'reconnecting, waiting, ordered': { ...base, phase: 'reconnecting', attempts: 1, ordered: true, heardAt: 2000, heartbeatMs: 25000 },
  'reconnecting, dialing': { ...base, phase: 'reconnecting', socket: 'opening', attempts: 3 },
  'reconnecting, socket open': { ...base, phase: 'reconnecting', socket: 'open', attempts: 3, heardAt: 9000 },
  failed: { ...base, phase: 'failed', attempts: 3 },
  'failed, ordered': { ...base, phase: 'failed', attempts: 3, ordered: true },
  // After fallback, from which the network led out once it was back.
  'failed, out of fallback': { ...base, phase: 'failed', attempts: 1, reason: 'connection lost' },
  'failed, out of fallback, ordered': { ...base, phase: 'failed', attempts: 1, ordered: true, reason: 'connection lost' },
  fallback: { ...base, phase: 'fallback', attempts: 8, reason: 'connection lost' },
  'fallback, final': { ...base, phase: 'fallback', reason: 'closed with 4400 unsupported_protocol_version', final: true },
  'fallback, probing': { ...base, phase: 'reconnecting', socket: 'opening', attempts: 8, reason: 'connection lost' },
  'fallback, probing, socket open': {
    ...base, phase: 'reconnecting', socket: 'open', attempts: 8, reason: 'connection lost', heardAt: 9000,
  },
};

/** Those of a client that does not look at silence, with what differs in its `config`. */
export const deaf = { heartbeat: false };
export const deafStates = {
  'connecting, socket open, no heartbeat': states['connecting, socket open'],
  'open, no heartbeat': states.open,
};

const at = 10000;
/** The events. Random is the middle, so that jitter is nothing. */
export const events = {
  connect: { type: 'connect', at },
  disconnect: { type: 'disconnect', at },
  opened: { type: 'opened', at },
  heard: { type: 'heard', at },
  greeted: { type: 'greeted', at, heartbeatMs: 20000 },
  timer: { type: 'timer', at, random: 0.5 },
  online: { type: 'wake', by: 'online', at, random: 0.5 },
  visible: { type: 'wake', by: 'visible', at, random: 0.5 },
  'closed 1006': { type: 'closed', at, random: 0.5, code: 1006, reason: '' },
  'closed 1000': { type: 'closed', at, random: 0.5, code: 1000, reason: 'normal' },
  'closed 1012, in 7 s': { type: 'closed', at, random: 0.5, code: 1012, reason: 'restart', after: 7000 },
  'closed 4400': { type: 'closed', at, random: 0.5, code: 4400, reason: 'unsupported_protocol_version' },
  'closed 3500, again': { type: 'closed', at, random: 0.5, code: 3500, reason: 'unauthenticated', again: true },
  'abandon 3003': { type: 'abandon', at, random: 0.5, code: 3003, reason: 'messages are missing' },
};

const dialing = [['open'], ['timer', 10000]];
const afresh = { socket: 'opening', attempts: 0, ordered: false, final: false, reason: null };
const stopped = { to: base, effects: [['timer', null]] };
const hungUp = { to: base, effects: [['close'], ['timer', null]] };
const gone = { socket: 'none', openedAt: null };

/** What becomes of a socket that is lost: by event, the failure, whose doing it is, and whether to come back. */
const losses = {
  'closed 1006': { code: 1006, reason: '', comesBack: true },
  'closed 1000': { code: 1000, reason: 'normal', comesBack: false },
  'closed 1012, in 7 s': { code: 1012, reason: 'restart', comesBack: true, after: 7000 },
  'closed 4400': { code: 4400, reason: 'unsupported_protocol_version', comesBack: false },
  'closed 3500, again': { code: 3500, reason: 'unauthenticated', comesBack: true },
  'abandon 3003': { code: 3003, reason: 'messages are missing', comesBack: true, isOurs: true },
};
const delays = [1000, 2000, 4000, 8000, 12000, 12000, 12000, 12000];

/** The outcome of a loss. `attempts` are those in a row before it. */
function lost(state, failure, { comesBack = true, after = null, isOurs = false, attempts = state.attempts, words }) {
  const close = isOurs ? [['close']] : [];
  if (!comesBack && failure.code === 1000) return { to: base, effects: [...close, ['timer', null], ['failed', failure, null]] };
  if (!comesBack) {
    const to = { ...state, ...gone, attempts, phase: 'fallback', reason: words, final: true };
    return { to, effects: [...close, ['timer', null], ['failed', failure, null]] };
  }
  if (attempts === 8) {
    const to = { ...state, ...gone, attempts, phase: 'fallback', reason: state.reason };
    return { to, effects: [...close, ['timer', 60000], ['failed', failure, null]] };
  }
  const delay = after ?? delays[attempts];
  const phase = state.openedAt === null ? 'failed' : 'reconnecting';
  const to = { ...state, ...gone, attempts: attempts + 1, phase, ordered: after !== null };
  return { to, effects: [...close, ['timer', delay], ['failed', failure, delay]] };
}

/** What happens with a socket, whatever the phase. */
function withSocket(state) {
  const opened = state.socket === 'open';
  const attempts = state.openedAt === -20000 || state.openedAt === -50000 ? 0 : state.attempts;
  const outcomes = { disconnect: hungUp, heard: { to: { ...state, heardAt: at }, effects: [] } };
  for (const [name, { code, reason, ...more }] of Object.entries(losses)) {
    outcomes[name] = lost(state, { code, reason, opened }, { ...more, attempts, words: `closed with ${code} ${reason}` });
  }
  return outcomes;
}

function whileDialing(state) {
  const opened = state.socket === 'open';
  const failure = { code: 1006, reason: '', opened, timeout: 'connect' };
  return {
    ...withSocket(state),
    connect: { to: { ...state, attempts: 0, reason: null }, effects: [] },
    opened: { to: { ...state, socket: 'open', heardAt: at }, effects: [] },
    // Before its socket is open a connection has nobody to greet it.
    greeted: opened ? {
      to: { ...state, phase: 'open', openedAt: at, heardAt: at, heartbeatMs: 20000, reason: null },
      effects: [['timer', 25000]],
    } : undefined,
    timer: lost(state, failure, { isOurs: true }),
  };
}

function whileUp(state) {
  const looked = { to: state, effects: [['timer', 23250]] };
  return {
    ...withSocket(state),
    greeted: { to: { ...state, phase: 'open', heardAt: at, heartbeatMs: 20000 }, effects: [['timer', 25000]] },
    timer: looked,
    // The network was away: as if the server had been silent for 1.25 intervals.
    online: { to: { ...state, phase: 'degraded', heardAt: at - 31250 }, effects: [['ping'], ['timer', 6250]] },
    visible: looked,
  };
}

function whileSilent(state) {
  const probed = { to: state, effects: [['ping'], ['timer', 5500]] };
  return {
    ...whileUp(state),
    heard: { to: { ...state, phase: 'open', heardAt: at }, effects: [] },
    timer: probed,
    online: probed,
    visible: probed,
  };
}

/** The same for who does not look at silence: no timer is set, and what comes of a timer or a wake is nothing. */
function whileDeaf(outcomes) {
  const { greeted, timer, ...more } = outcomes;
  const failed = timer.effects.some(([effect]) => effect === 'failed') ? timer : undefined;
  return { ...more, greeted: { ...greeted, effects: [['timer', null]] }, timer: failed, online: undefined, visible: undefined };
}

function whileWaiting(state) {
  const dial = { ...state, phase: 'reconnecting', socket: 'opening', ordered: false };
  const woken = state.ordered ? undefined : { to: dial, effects: dialing };
  return {
    connect: { to: { ...dial, attempts: 0 }, effects: dialing },
    disconnect: stopped,
    timer: { to: dial, effects: dialing },
    online: woken,
    visible: woken,
  };
}

const started = { to: { ...base, ...afresh, phase: 'connecting' }, effects: dialing };

/** By state and event what comes of it; what is not here changes nothing. */
export const table = {
  idle: { connect: started },
  connecting: whileDialing(states.connecting),
  'connecting, socket open': whileDialing(states['connecting, socket open']),
  open: whileUp(states.open),
  'open, stable': whileUp(states['open, stable']),
  degraded: whileSilent(states.degraded),
  'reconnecting, waiting': whileWaiting(states['reconnecting, waiting']),
  'reconnecting, waiting, ordered': whileWaiting(states['reconnecting, waiting, ordered']),
  'reconnecting, dialing': whileDialing(states['reconnecting, dialing']),
  'reconnecting, socket open': whileDialing(states['reconnecting, socket open']),
  failed: whileWaiting(states.failed),
  'failed, ordered': whileWaiting(states['failed, ordered']),
  'failed, out of fallback': whileWaiting(states['failed, out of fallback']),
  'failed, out of fallback, ordered': whileWaiting(states['failed, out of fallback, ordered']),
  fallback: {
    connect: started,
    disconnect: stopped,
    timer: { to: { ...states.fallback, phase: 'reconnecting', socket: 'opening' }, effects: dialing },
    online: { to: { ...states.fallback, phase: 'reconnecting', socket: 'opening', attempts: 0 }, effects: dialing },
  },
  'fallback, final': { connect: started, disconnect: stopped },
  'fallback, probing': whileDialing(states['fallback, probing']),
  'fallback, probing, socket open': whileDialing(states['fallback, probing, socket open']),
  'connecting, socket open, no heartbeat': whileDeaf(whileDialing(states['connecting, socket open'])),
  'open, no heartbeat': whileDeaf(whileUp(states.open)),
};

/** Cases that the table has no room for: [name, state, event, to, effects]. */
const silent = { ...up, phase: 'degraded', attempts: 2 };
const dead = { code: 1006, reason: '', opened: true, timeout: 'heartbeat' };
export const more = [
  ['open, silent for 1.25 intervals', states.open, { type: 'timer', at: 33250 },
    { ...states.open, phase: 'degraded' }, [['ping'], ['timer', 6250]]],
  ['degraded, silent for 1.5 intervals', silent, { type: 'timer', at: 39500, random: 0.5 },
    { ...silent, ...gone, phase: 'reconnecting', attempts: 1 }, [['close'], ['timer', 1000], ['failed', dead, 1000]]],
  ['open, silent since the network is back', { ...silent, heardAt: -21250 }, { type: 'timer', at: 16250, random: 0.5 },
    { ...silent, heardAt: -21250, ...gone, phase: 'reconnecting', attempts: 3 }, [['close'], ['timer', 4000], ['failed', dead, 4000]]],
  ['open, back after an hour without a network', states.open, { type: 'wake', by: 'online', at: 3600000, random: 0.5 },
    { ...states.open, heardAt: 2000, ...gone, phase: 'reconnecting', attempts: 1 }, [['close'], ['timer', 1000], ['failed', dead, 1000]]],
  ['open, back after an hour of sleep', states.open, { type: 'wake', by: 'visible', at: 3600000, random: 0.5 },
    { ...states.open, ...gone, phase: 'reconnecting', attempts: 1 }, [['close'], ['timer', 1000], ['failed', dead, 1000]]],
  ['open, lost a moment before it has proved itself', states.open, { type: 'closed', at: 20999, random: 0.5, code: 1006, reason: '' },
    { ...states.open, ...gone, phase: 'reconnecting', attempts: 3 },
    [['timer', 4000], ['failed', { code: 1006, reason: '', opened: true }, 4000]]],
  ['open, lost when it has proved itself', states.open, { type: 'closed', at: 21000, random: 0.5, code: 1006, reason: '' },
    { ...states.open, ...gone, phase: 'reconnecting', attempts: 1 },
    [['timer', 1000], ['failed', { code: 1006, reason: '', opened: true }, 1000]]],
  ['the last attempt fails for good', { ...states['reconnecting, dialing'], attempts: 8 },
    { type: 'closed', at, random: 0.5, code: 1006, reason: '' },
    { ...base, phase: 'fallback', attempts: 8, reason: 'no connection to the server' },
    [['timer', 60000], ['failed', { code: 1006, reason: '', opened: false }, null]]],
];
