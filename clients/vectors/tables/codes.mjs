// Delays, close codes and classes of failures, written down by hand and by the document's formula.
// It must never be made from a client's code.

/** By close code: whether to come back, and the class of a connection that ended so after it was open. */
export const closeCodes = [
  [1000, false, 'unknown'], [1001, true, 'abnormal'], [1002, false, 'handshake'], [1003, false, 'handshake'],
  [1004, false, 'unknown'], [1005, false, 'unknown'], [1006, true, 'abnormal'], [1007, false, 'handshake'],
  [1008, false, 'handshake'], [1009, false, 'handshake'], [1010, false, 'handshake'], [1011, true, 'server_error'],
  [1012, true, 'server_error'], [1013, true, 'server_error'], [1014, false, 'server_error'], [1015, false, 'network'],
  [1016, false, 'unknown'], [2999, false, 'unknown'], [3000, true, 'server_error'], [3001, true, 'server_error'],
  [3002, true, 'timeout'], [3003, true, 'server_error'], [3004, true, 'handshake'], [3005, true, 'server_error'],
  [3006, true, 'server_error'], [3007, true, 'server_error'], [3499, true, 'server_error'], [3500, false, 'handshake'],
  [3501, false, 'handshake'], [3502, false, 'handshake'], [3503, false, 'handshake'], [3504, false, 'handshake'],
  [3505, false, 'handshake'], [3506, false, 'handshake'], [3507, false, 'handshake'], [3508, false, 'handshake'],
  [3999, false, 'handshake'], [4000, false, 'unknown'], [4399, false, 'unknown'], [4400, false, 'handshake'],
  [4401, false, 'handshake'], [4402, false, 'handshake'], [4499, false, 'handshake'], [4500, true, 'server_error'],
  [4501, false, 'server_error'], [4599, false, 'server_error'], [4600, false, 'unknown'], [4999, false, 'unknown'],
];

const never = (reason) => ({ code: 1006, reason, opened: false });
/** A failure, its class, and how it is said. */
export const failures = [
  [{ code: 1006, reason: '', opened: true, timeout: 'connect' }, 'timeout', 'network timeout'],
  [{ code: 1006, reason: '', opened: false, timeout: 'connect' }, 'timeout', 'network timeout'],
  [{ code: 1006, reason: '', opened: true, timeout: 'heartbeat' }, 'timeout', 'heartbeat timeout'],
  [{ code: 1006, reason: '', opened: true }, 'abnormal', 'connection lost'],
  [{ code: 1006, reason: 'read ECONNRESET', opened: true }, 'abnormal', 'read ECONNRESET'],
  [never(''), 'network', 'no connection to the server'],
  [never('getaddrinfo ENOTFOUND nowhere'), 'network', 'getaddrinfo ENOTFOUND nowhere'],
  [never('connect ECONNREFUSED 127.0.0.1:1'), 'network', 'connect ECONNREFUSED 127.0.0.1:1'],
  [never('self-signed certificate'), 'network', 'self-signed certificate'],
  [never('connect ETIMEDOUT 10.0.0.1:8000'), 'timeout', 'connect ETIMEDOUT 10.0.0.1:8000'],
  [never('Opening handshake has timed out'), 'timeout', 'Opening handshake has timed out'],
  [never('Unexpected server response: 400'), 'handshake', 'Unexpected server response: 400'],
  [never('Unexpected server response: 401'), 'handshake', 'Unexpected server response: 401'],
  [never('Unexpected server response: 403'), 'handshake', 'Unexpected server response: 403'],
  [never('Unexpected server response: 407'), 'handshake', 'Unexpected server response: 407'],
  [never('Unexpected server response: 429'), 'handshake', 'Unexpected server response: 429'],
  [never('Unexpected server response: 500'), 'server_error', 'Unexpected server response: 500'],
  [never('Unexpected server response: 503'), 'server_error', 'Unexpected server response: 503'],
  [never('Unexpected server response: 200'), 'network', 'Unexpected server response: 200'],
  [never('NetworkError: failed to connect to WebSocket: Invalid status code: 404'), 'handshake', 'NetworkError: failed to connect to WebSocket: Invalid status code: 404'],
  [never('Expected 101 status code: 503'), 'server_error', 'Expected 101 status code: 503'],
  [{ code: 1006, reason: 'Unexpected EOF', opened: true }, 'abnormal', 'Unexpected EOF'],
  [{ code: 4400, reason: 'unsupported_protocol_version', opened: true }, 'handshake', 'closed with 4400 unsupported_protocol_version'],
  [{ code: 3507, reason: '', opened: true }, 'handshake', 'closed with 3507'],
  [{ code: 4123, reason: 'x', opened: true }, 'unknown', 'closed with 4123 x'],
];

/** The documented strategies. */
const production = { baseDelaysMs: [1000, 2000, 4000, 8000, 12000], capDelayMs: 12000, jitterRatio: 0.2, maxAttempts: 8 };
const strategies = {
  production,
  immediate: { baseDelaysMs: [100], capDelayMs: 100, jitterRatio: 0, maxAttempts: 8 },
  aggressive: { baseDelaysMs: [500, 1000, 2000, 4000], capDelayMs: 4000, jitterRatio: 0.2, maxAttempts: 10 },
  'as in the document': { baseDelaysMs: [500, 1000, 2000], capDelayMs: 5000, jitterRatio: 0.1, maxAttempts: 5 },
  'too short': { baseDelaysMs: [10, 90, 120], capDelayMs: 150, jitterRatio: 0.5, maxAttempts: 4 },
  'above its cap': { baseDelaysMs: [1000, 9000], capDelayMs: 3000, jitterRatio: 0.25, maxAttempts: 3 },
};
const draws = [0, 0.25, 0.5, 0.75, 0.9999847412109375];

/** final_delay = base_delay + random(-jitter_amount, +jitter_amount), never below 100 ms. */
function documented(strategy, attempt, random) {
  if (attempt >= strategy.maxAttempts) return null;
  const table = strategy.baseDelaysMs;
  const base_delay = Math.min(table[Math.min(attempt, table.length - 1)], strategy.capDelayMs);
  const jitter_amount = base_delay * strategy.jitterRatio;
  return Math.max(100, Math.round(base_delay + (2 * random - 1) * jitter_amount));
}

export const delays = Object.entries(strategies).flatMap(([name, strategy]) =>
  Array.from({ length: strategy.maxAttempts + 1 }, (_, attempt) =>
    draws.map((random) => ({
      name: `${name}, attempt ${attempt}, random ${random}`,
      strategy, attempt, random, delay: documented(strategy, attempt, random),
    })),
  ).flat(),
);

/** Full jitter: the bounds by attempt, written out. */
const bounds = [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000, 20000];
export const fullJitter = [...bounds.keys(), 31, 1000].flatMap((attempt) =>
  draws.map((random) => ({
    name: `attempt ${attempt}, random ${random}`,
    baseMs: 200, capMs: 20000, attemptsMax: null, attempt, random,
    delay: Math.round(random * (bounds[attempt] ?? 20000)),
  })),
).concat([{ name: 'after the last', baseMs: 200, capMs: 20000, attemptsMax: 3, attempt: 3, random: 0.5, delay: null }]);
