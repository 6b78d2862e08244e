// How long to wait before the next attempt: the documented strategy with its jitter around a table
// of delays, and full jitter for protocol v2.
//
// It must never read a clock; a random number in [0, 1) comes from outside or from the caller's default.

/** Answers how long to wait before reconnection attempt `attempt` (the first is 0); null: no more. */
export type Backoff = (attempt: number, random: number) => number | null;

/** The settings of a {@link BackoffStrategy}. */
export interface BackoffConfig {
  /** The delay before each attempt, in ms; the last one counts for all further attempts. */
  baseDelaysMs: readonly number[];
  /** No base delay is longer, in ms. Jitter comes on top. */
  capDelayMs: number;
  /** How far jitter goes to either side, as a part of the base delay. */
  jitterRatio: number;
  /** How many reconnection attempts there are in a row. */
  maxAttempts: number;
}

/** No delay is shorter, in ms. */
export const MIN_DELAY_MS = 100;

const PRODUCTION: BackoffConfig = {
  baseDelaysMs: [1000, 2000, 4000, 8000, 12000],
  capDelayMs: 12000,
  jitterRatio: 0.2,
  maxAttempts: 8,
};

/** Jittered exponential backoff: `base ± base * jitterRatio`, never below 100 ms. */
export class BackoffStrategy {
  readonly config: Readonly<BackoffConfig>;
  #attempts = 0;

  constructor(config: Partial<BackoffConfig> = {}) {
    this.config = { ...PRODUCTION, ...config };
  }

  /** For tests: 100 ms, without jitter. */
  static createImmediateStrategy(): BackoffStrategy {
    return new BackoffStrategy({ baseDelaysMs: [100], capDelayMs: 100, jitterRatio: 0 });
  }

  /** Comes back faster and tries longer. */
  static createAggressiveStrategy(): BackoffStrategy {
    return new BackoffStrategy({
      baseDelaysMs: [500, 1000, 2000, 4000],
      capDelayMs: 4000,
      maxAttempts: 10,
    });
  }

  /** The delay before attempt `attempt` (the first is 0) in whole ms, whatever was asked before; null after the last. */
  delayFor(attempt: number, random: number): number | null {
    const { baseDelaysMs, capDelayMs, jitterRatio, maxAttempts } = this.config;
    if (attempt >= maxAttempts) return null;
    const base = Math.min(baseDelaysMs[attempt] ?? baseDelaysMs.at(-1) ?? capDelayMs, capDelayMs);
    return Math.max(MIN_DELAY_MS, Math.round(base + (2 * random - 1) * base * jitterRatio));
  }

  /** The next delay of this strategy's own count, null after the last. */
  nextDelay(random: number = Math.random()): number | null {
    const delay = this.delayFor(this.#attempts, random);
    if (delay !== null) this.#attempts += 1;
    return delay;
  }

  /** How many delays were taken since the start or {@link reset}. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Whether {@link nextDelay} has another. */
  hasAttemptsLeft(): boolean {
    return this.#attempts < this.config.maxAttempts;
  }

  /** Begins anew. */
  reset(): void {
    this.#attempts = 0;
  }
}

/** Full jitter: between nothing and `baseMs * 2^attempt`, at most `capMs`, for `maxAttempts` or for ever. */
export function fullJitter(baseMs = 200, capMs = 20_000, maxAttempts: number | null = null): Backoff {
  return (attempt, random) => {
    if (maxAttempts !== null && attempt >= maxAttempts) return null;
    return Math.round(random * Math.min(baseMs * 2 ** Math.min(attempt, 31), capMs));
  };
}
