// The reducer under any order of events: the promises that hold whatever happens.
// It must never rely on an order that a browser would keep to.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BackoffStrategy,
  fullJitter,
  IDLE,
  type Life,
  type LifeConfig,
  type LifeEvent,
  transition,
} from '../src/machine.js';

const PHASES = ['idle', 'connecting', 'open', 'degraded', 'reconnecting', 'failed', 'fallback'];
const MAX_ATTEMPTS = 3;
const strategy = new BackoffStrategy({ maxAttempts: MAX_ATTEMPTS });
const config: LifeConfig = {
  connectTimeoutMs: 10_000,
  heartbeat: true,
  backoff: (attempt, random) => strategy.delayFor(attempt, random),
  stableAfterMs: 20_000,
  probeMs: 60_000,
};

const code = fc.oneof(
  fc.constantFrom(1000, 1001, 1005, 1006, 1012, 3001, 3500, 4400, 4500),
  fc.integer({ min: 0, max: 65_535 }),
);
const event = fc.tuple(
  fc.integer({ min: 0, max: 60_000 }),
  fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  fc.oneof(
    fc.constantFrom('connect', 'disconnect', 'opened', 'heard', 'timer').map((type) => ({ type })),
    fc.integer({ min: 1000, max: 60_000 }).map((heartbeatMs) => ({ type: 'greeted', heartbeatMs })),
    fc.constantFrom('online', 'visible').map((by) => ({ type: 'wake', by })),
    fc.record({
      type: fc.constantFrom('closed', 'abandon'),
      code,
      reason: fc.string({ maxLength: 8 }),
      after: fc.option(fc.integer({ min: 0, max: 3_600_000 })),
      again: fc.boolean(),
    }),
  ),
);

/** What is out there: the sockets and the timer that the effects have made. */
class World {
  life: Life = IDLE;
  at = 0;
  sockets = 0;
  timer: number | null = null;

  step(wait: number, random: number, more: object): void {
    this.at += wait;
    const next = { at: this.at, random, ...more } as LifeEvent;
    // A socket that is gone says nothing any more, and a timer that is not set does not fire.
    if (['opened', 'heard', 'greeted', 'closed'].includes(next.type) && this.sockets === 0) return;
    if (next.type === 'timer' && this.timer === null) return;
    if (next.type === 'timer') this.timer = null;
    if (next.type === 'closed') this.sockets -= 1;
    const before = this.life;
    const [life, effects] = transition(before, next, config);
    this.life = life;
    for (const effect of effects) {
      if (effect[0] === 'open') this.sockets += 1;
      if (effect[0] === 'close' && next.type !== 'closed') this.sockets -= 1;
      if (effect[0] === 'timer') this.timer = effect[1];
    }
  }
}

const runs = fc.array(event, { maxLength: 60 });

describe('whatever happens, in whatever order', () => {
  const holds = (name: string, check: (world: World) => void) =>
    it(name, () => {
      fc.assert(
        fc.property(runs, (events) => {
          const world = new World();
          for (const [wait, random, more] of events) {
            world.step(wait, random, more);
            check(world);
          }
        }),
        { numRuns: 2000 },
      );
    });

  holds('the phase is a documented one', ({ life }) => expect(PHASES).toContain(life.phase));
  holds('there is one socket at most, and the state knows it', ({ life, sockets }) => {
    expect(sockets).toBe(life.socket === 'none' ? 0 : 1);
  });
  holds('no timer is left behind in idle, nor in a final fallback', ({ life, timer }) => {
    if (life.phase === 'idle' || life.final) expect(timer).toBeNull();
  });
  holds('whoever waits has a timer', ({ life, timer }) => {
    const isWaiting = life.phase === 'failed' || (life.phase === 'fallback' && !life.final);
    if (isWaiting || life.phase === 'connecting' || life.phase === 'reconnecting') expect(timer).not.toBeNull();
  });
  holds('attempts are bounded', ({ life }) => {
    expect(life.attempts).toBeLessThanOrEqual(MAX_ATTEMPTS);
    expect(life.attempts).toBeGreaterThanOrEqual(0);
  });
  holds('whoever is up is open or degraded, and the other way round', ({ life }) => {
    expect(life.openedAt !== null).toBe(life.phase === 'open' || life.phase === 'degraded');
  });
  holds('whoever is up has an open socket', ({ life }) => {
    if (life.openedAt !== null) expect(life.socket).toBe('open');
  });
  holds('no wait is below 100 ms but where the server says so', ({ life, timer }) => {
    if (life.phase === 'failed' && !life.ordered) expect(timer).toBeGreaterThanOrEqual(100);
  });
});

describe('full jitter', () => {
  it('is spread evenly between nothing and its bound (Kolmogorov-Smirnov over 100,000 draws)', () => {
    const backoff = fullJitter();
    const draws = Array.from({ length: 100_000 }, () => (backoff(5, Math.random()) ?? 0) / 6400).sort((a, b) => a - b);
    let distance = 0;
    for (const [i, x] of draws.entries()) distance = Math.max(distance, Math.abs((i + 1) / draws.length - x));
    // Beyond 2.5 / sqrt(n) a fair source falls once in 130,000 runs; waits are whole ms, which costs 1 / 12,800.
    expect(distance).toBeLessThan(2.5 / Math.sqrt(draws.length) + 1 / 6400);
  });

  it('is never above its cap, however long the series', () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (attempt, random) => {
        const delay = fullJitter()(attempt, random) ?? Number.NaN;
        expect(delay).toBeGreaterThanOrEqual(0);
        expect(delay).toBeLessThanOrEqual(20_000);
      }),
    );
  });
});

describe('BackoffStrategy', () => {
  it('has the documented default', () => {
    const documented = {
      baseDelaysMs: [1000, 2000, 4000, 8000, 12000],
      capDelayMs: 12000,
      jitterRatio: 0.2,
      maxAttempts: 8,
    };
    expect(new BackoffStrategy().config).toEqual(documented);
  });

  it('hands out its sequence, ends, and begins anew after a reset', () => {
    const backoff = new BackoffStrategy({ maxAttempts: 3 });
    expect([0, 1, 2, 3].map(() => backoff.nextDelay(0.5))).toEqual([1000, 2000, 4000, null]);
    expect(backoff.hasAttemptsLeft()).toBe(false);
    backoff.reset();
    expect([backoff.attempts, backoff.nextDelay(0.5)]).toEqual([0, 1000]);
  });

  it('has an immediate and an aggressive variant', () => {
    const immediate = BackoffStrategy.createImmediateStrategy();
    expect([0, 1, 2].map((attempt) => immediate.delayFor(attempt, Math.random()))).toEqual([100, 100, 100]);
    const { capDelayMs, maxAttempts } = BackoffStrategy.createAggressiveStrategy().config;
    expect([capDelayMs, maxAttempts]).toEqual([4000, 10]);
  });
});
