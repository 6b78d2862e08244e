// The conformance vectors: delays, codes, classes, the life of a connection, the place in a room.
// It must never compute an expectation itself.

import { expect, describe as group, it } from 'vitest';
import {
  type BackoffConfig,
  BackoffStrategy,
  classify,
  describe,
  type Effect,
  type Failure,
  fullJitter,
  type Life,
  type LifeEvent,
  shouldReconnect,
  Track,
  transition,
} from '../src/machine.js';
import type { Position } from '../src/protocol.js';
import { vectors } from './vectors.js';

group('delays of the documented strategies', () => {
  const { cases } = vectors<{ strategy: BackoffConfig; attempt: number; random: number; delay: number | null }>(
    'backoff',
  );
  // K02.
  it.each(cases)('$name', ({ strategy, attempt, random, delay }) => {
    expect(new BackoffStrategy(strategy).delayFor(attempt, random)).toBe(delay);
  });
});

group('full jitter', () => {
  type Case = {
    baseMs: number;
    capMs: number;
    attemptsMax: number | null;
    attempt: number;
    random: number;
    delay: number;
  };
  it.each(vectors<Case>('full_jitter').cases)('$name', ({ baseMs, capMs, attemptsMax, attempt, random, delay }) => {
    expect(fullJitter(baseMs, capMs, attemptsMax)(attempt, random)).toBe(delay);
  });
});

group('close codes', () => {
  it.each(vectors<{ code: number; reconnect: boolean; class: string }>('close_codes').cases)('$name', (one) => {
    expect(shouldReconnect(one.code)).toBe(one.reconnect);
    expect(classify({ code: one.code, reason: '', opened: true })).toBe(one.class);
  });
});

group('classes of failures', () => {
  it.each(vectors<{ failure: Failure; class: string; text: string }>('classes').cases)('$name', (one) => {
    expect(classify(one.failure)).toBe(one.class);
    expect(describe(one.failure)).toBe(one.text);
  });
});

group('the life of a connection', () => {
  type Case = { config?: object; from: Life; event: LifeEvent; to: Life; effects: Effect[] };
  const { cases, config } = vectors<Case, { config: { backoff: BackoffConfig } & Record<string, never> }>('life');
  const strategy = new BackoffStrategy(config.backoff);
  const real = { ...config, backoff: (attempt: number, random: number) => strategy.delayFor(attempt, random) };
  // K01: every event in every state.
  it.each(cases)('$name', ({ config: own, from, event, to, effects }) => {
    const [life, done] = transition(from, event, { ...real, ...own } as never);
    expect(life).toEqual(to);
    expect(done).toEqual(effects);
  });
});

group('the place in a room', () => {
  type Step = Record<string, never> & { answers: unknown; stands: Position | null };
  it.each(vectors<{ since: Position | null; filtered?: boolean; steps: Step[] }>('track').cases)('$name', (one) => {
    const track = new Track(one.since, one.filtered ?? false);
    for (const { answers, stands, accept, previous, reach, skip, pass } of one.steps) {
      if (accept) {
        const place = track.look(accept, previous ?? null);
        expect(place).toEqual(answers);
        // Where it is told, the client stands.
        if (answers !== 'own' && answers !== 'duplicate') track.at = accept;
      }
      if (reach) expect(track.reach(reach)).toEqual(answers);
      if (skip) expect(track.skip(skip)).toEqual(answers);
      if (pass) track.pass(pass);
      expect(track.at).toEqual(stands);
    }
  });
});
